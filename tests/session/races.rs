//! What other tabs and replicas do meanwhile.
