//! Who is calling, and for which tenant.

pub mod resolve;
