//! Why sessions end, and who is told.
