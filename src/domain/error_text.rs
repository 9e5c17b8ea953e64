//! The text of errors with their causes.

use std::error::Error;

/// Returns the text of an error followed by those of its causes, the outermost first. Omits a cause whose text
/// is already stated, because some errors include the text of their cause.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let statement = source.to_string();
        if !text.contains(&statement) {
            text.push_str(": ");
            text.push_str(&statement);
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("failed to read")]
        Separate(#[source] std::io::Error),
        #[error("failed to read: {0}")]
        Included(#[source] std::io::Error),
    }

    #[test]
    fn cause_is_stated_once() {
        let cause = || std::io::Error::other("disk is full");
        assert_eq!(with_causes(&Outer::Separate(cause())), "failed to read: disk is full");
        assert_eq!(with_causes(&Outer::Included(cause())), "failed to read: disk is full");
    }
}
