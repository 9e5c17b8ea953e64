//! What the bytes of a file say about it. Pure CPU, never on the network, always bounded in what it reads.

pub mod sniff;
