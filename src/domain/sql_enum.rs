//! Enums that are stored in the database as small integers.
//!
//! The operators of PostgreSQL enums are not leakproof, so indexes on them are not used under row-level
//! security. A `smallint` with a CHECK constraint does not have this problem. This macro defines the enum and
//! its numbers in one place. Rows contain the numbers and applied migrations contain the names, so neither
//! changes.

/// Declares a field-less enum with a number and a name per variant, and conversions from and to the number.
macro_rules! sql_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant = $number),+ }

        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the number in the database.
            pub const fn number(self) -> i16 {
                self as i16
            }

            /// Returns the value with this number, if there is one.
            pub const fn from_number(number: i16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// Returns the name, in lower case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use sql_enum;
