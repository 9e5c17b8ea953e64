//! Analysis of file contents. Pure CPU work without network access, with a bounded number of bytes read.

pub mod sniff;
