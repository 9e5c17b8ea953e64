//! Conversions between columns and types of the domain. All of them are here, so that rows have fields of
//! these types, and a query with an unexpected value in a column fails.

use diesel::{
    deserialize::{self, FromSql, Queryable},
    expression::AsExpression,
    // The derive of `AsExpression` uses this type; the types of the domain cannot derive it.
    internal::derives::as_expression::Bound,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::{BigInt, Binary, Jsonb, Nullable, SingleValue, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    InSql,
    xid::{Xid, Xid8},
};
use crate::{
    db::{
        audit_entries::AuditAction,
        events::EventKind,
        idempotency_keys::Method,
        jobs::{JobOutcome, JobState},
    },
    domain::{
        access_log::AccessAction,
        block_checksums::{BlockChecksums, Crc32c},
        breaker::BreakerState,
        caller::{ActorKind, Role, TenantKind, TenantState},
        checksum::Crc64,
        digest::Digest,
        file::{ContentState, FileState, ScanStatus, StateReason, Visibility},
        ids::{
            BlobId, ClaimId, ErasureId, FileId, GrantId, InstallationId, JobId, QuotaAlertId, RequestId,
            ShareId, TenantId, UploadId, WebhookId,
        },
        media_type::MediaKind,
        object_key::ObjectKey,
        permission::Permission,
        policy::Policy,
        quota_alert::AlertLevel,
        rate_limits::RequestLimits,
        share::ShareType,
        storage_class::StorageClass,
        upload::UploadState,
        usage_recalculation::RecalculationState,
        visitor_attempts::AttemptScope,
        webhook::{DeliveryState, WebhookState},
    },
};

/// Lets the query builder take a value of a type as an argument, and read it from a column.
macro_rules! stored {
    ($type:ty, $sql_type:ty) => {
        impl<'a> AsExpression<$sql_type> for &'a $type {
            type Expression = Bound<$sql_type, Self>;

            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }

        impl AsExpression<$sql_type> for $type {
            type Expression = Bound<$sql_type, Self>;

            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }

        impl<'a> AsExpression<Nullable<$sql_type>> for &'a $type {
            type Expression = Bound<Nullable<$sql_type>, Self>;

            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }

        impl AsExpression<Nullable<$sql_type>> for $type {
            type Expression = Bound<Nullable<$sql_type>, Self>;

            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }

        impl ToSql<Nullable<$sql_type>, Pg> for $type {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<$sql_type, Pg>::to_sql(self, out)
            }
        }

        impl<ST> Queryable<ST, Pg> for $type
        where
            ST: SingleValue,
            Self: FromSql<ST, Pg>,
        {
            type Row = Self;

            fn build(row: Self) -> deserialize::Result<Self> {
                Ok(row)
            }
        }
    };
}

/// Stores the values of enums as their numbers.
macro_rules! stored_numbers {
    ($type:ty) => {
        stored!($type, SmallInt);

        impl ToSql<SmallInt, Pg> for $type {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<SmallInt, Pg>::to_sql(&self.number(), &mut out.reborrow())
            }
        }

        impl InSql for $type {
            fn in_sql(&self) -> String {
                self.number().to_string()
            }
        }
    };
}

/// Stores enums whose numbers are all known.
macro_rules! stored_enums {
    ($($type:ty),+ $(,)?) => {$(
        stored_numbers!($type);

        impl FromSql<SmallInt, Pg> for $type {
            fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
                let number = <i16 as FromSql<SmallInt, Pg>>::from_sql(bytes)?;
                Self::from_number(number)
                    .ok_or_else(|| format!("{number} is not a {}", stringify!($type)).into())
            }
        }
    )+};
}

stored_enums!(
    AccessAction,
    ActorKind,
    AlertLevel,
    AttemptScope,
    AuditAction,
    BreakerState,
    ContentState,
    DeliveryState,
    FileState,
    JobOutcome,
    JobState,
    MediaKind,
    Method,
    Permission,
    RecalculationState,
    Role,
    ScanStatus,
    ShareType,
    StateReason,
    StorageClass,
    TenantKind,
    TenantState,
    UploadState,
    Visibility,
    WebhookState,
);

stored_numbers!(EventKind);

/// Accepts the kinds of newer releases.
impl FromSql<SmallInt, Pg> for EventKind {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        <i16 as FromSql<SmallInt, Pg>>::from_sql(bytes).map(Self::from_stored)
    }
}

/// Stores ids as UUIDs.
macro_rules! stored_ids {
    ($($type:ty),+ $(,)?) => {$(
        stored!($type, SqlUuid);

        impl ToSql<SqlUuid, Pg> for $type {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<SqlUuid, Pg>::to_sql(&self.as_uuid(), &mut out.reborrow())
            }
        }

        impl FromSql<SqlUuid, Pg> for $type {
            fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
                <Uuid as FromSql<SqlUuid, Pg>>::from_sql(bytes).map(Self::from_uuid)
            }
        }
    )+};
}

stored_ids!(
    BlobId,
    ClaimId,
    ErasureId,
    FileId,
    GrantId,
    InstallationId,
    JobId,
    QuotaAlertId,
    RequestId,
    ShareId,
    TenantId,
    UploadId,
    WebhookId
);

stored!(Digest, Binary);

impl ToSql<Binary, Pg> for Digest {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Binary, Pg>::to_sql(self.as_bytes().as_slice(), out)
    }
}

impl FromSql<Binary, Pg> for Digest {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self::from_slice(bytes.as_bytes())?)
    }
}

stored!(Crc64, Binary);

impl ToSql<Binary, Pg> for Crc64 {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Binary, Pg>::to_sql(self.to_be_bytes().as_slice(), &mut out.reborrow())
    }
}

impl FromSql<Binary, Pg> for Crc64 {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Self::from_slice(bytes.as_bytes()).ok_or_else(|| "a checksum has 8 bytes".into())
    }
}

stored!(Crc32c, Binary);

impl ToSql<Binary, Pg> for Crc32c {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Binary, Pg>::to_sql(self.to_be_bytes().as_slice(), &mut out.reborrow())
    }
}

impl FromSql<Binary, Pg> for Crc32c {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Self::from_slice(bytes.as_bytes()).ok_or_else(|| "a checksum has 4 bytes".into())
    }
}

stored!(BlockChecksums, Binary);

impl ToSql<Binary, Pg> for BlockChecksums {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Binary, Pg>::to_sql(self.as_bytes(), out)
    }
}

impl FromSql<Binary, Pg> for BlockChecksums {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self::from_bytes(bytes.as_bytes().to_vec()))
    }
}

stored!(ObjectKey, Text);

impl ToSql<Text, Pg> for ObjectKey {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Text, Pg>::to_sql(self.as_str(), out)
    }
}

impl FromSql<Text, Pg> for ObjectKey {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self::parse(std::str::from_utf8(bytes.as_bytes())?)?)
    }
}

/// Stores a type as a JSON document.
macro_rules! stored_as_json {
    ($type:ty) => {
        stored!($type, Jsonb);

        impl ToSql<Jsonb, Pg> for $type {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<Jsonb, Pg>::to_sql(&serde_json::to_value(self)?, &mut out.reborrow())
            }
        }

        impl FromSql<Jsonb, Pg> for $type {
            fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
                let document = <serde_json::Value as FromSql<Jsonb, Pg>>::from_sql(bytes)?;
                Ok(serde_json::from_value(document)?)
            }
        }
    };
}

stored_as_json!(Policy);
stored_as_json!(RequestLimits);

stored!(Xid, Xid8);

impl ToSql<Xid8, Pg> for Xid {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<BigInt, Pg>::to_sql(&self.0.cast_signed(), &mut out.reborrow())
    }
}

impl FromSql<Xid8, Pg> for Xid {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        <i64 as FromSql<BigInt, Pg>>::from_sql(bytes).map(|number| Self(number.cast_unsigned()))
    }
}
