//! Ids that we mint: UUIDv7, each kind a type of its own, so that a file's id never stands where a tenant's belongs.

use std::{fmt, str::FromStr};

use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that came from a [`super::clock::IdSource`], the database or the wire.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID inside.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}

id!(
    /// An organisation or a person.
    TenantId
);
id!(
    /// A file: a record with one or more versions.
    FileId
);
id!(
    /// One stored object.
    BlobId
);
id!(
    /// An upload that holds a reservation.
    UploadId
);
id!(
    /// What a caller sends to make a retry safe. Theirs, not ours, but a UUID all the same.
    RequestId
);
id!(
    /// Work in the queue.
    JobId
);
id!(
    /// An endpoint that events are sent to.
    WebhookId
);
