//! placeholder until the storage room is merged
