//! An application on real sockets.
