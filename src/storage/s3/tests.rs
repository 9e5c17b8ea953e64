//! Against a server that answers from a script.
