//! Rows of `files`, and their columns: in queries of the query builder and in SQL text, with and without those that
//! can be large.

use diesel::{Queryable, QueryableByName, Selectable};

use super::{
    schema::files,
    sql::{Damage, Readable},
};
use crate::domain::{
    clock::{TIMESTAMP_MAX, Timestamp},
    digest::Digest,
    file::{ContentState, File, LegalHold, ScanStatus, StateReason, Trash, Visibility},
    ids::{FileId, TenantId},
    media_type::MediaKind,
};

/// Declares [`FileRow`] and its lists of columns. A basic list has a constant instead of each large column.
macro_rules! file_row {
    (
        $(#[$doc:meta])* $name:ident {
            $first:ident: $first_type:ty,
            $($column:ident: $type:ty,)+
        }
        large { $($large:ident: $large_type:ty = $constant:expr, $sql:literal;)+ }
    ) => {
        $(#[$doc])*
        #[derive(Queryable, QueryableByName, Selectable)]
        #[diesel(table_name = files, check_for_backend(diesel::pg::Pg))]
        pub(super) struct $name {
            $first: $first_type,
            $($column: $type,)+
            $($large: $large_type,)+
        }

        /// The columns of a row in SQL text, where the table is called `f`.
        pub(super) const COLUMNS: &str = concat!(
            "f.", stringify!($first) $(, ", f.", stringify!($column))+ $(, ", f.", stringify!($large))+
        );

        /// The same columns with constants instead of the large ones.
        pub(super) const BASIC_COLUMNS: &str = concat!(
            "f.", stringify!($first) $(, ", f.", stringify!($column))+
            $(, ", ", $sql, " AS ", stringify!($large))+
        );

        /// The columns of a row in a query, with constants instead of the large ones.
        macro_rules! basic_row {
            () => {
                (files::$first, $(files::$column,)+ $($constant,)+)
            };
        }
    };
}

file_row! {
    /// A row of `files`. A column that cannot be read damages the record and not the query; see
    /// [`into_file`](Self::into_file).
    FileRow {
        tenant_id: TenantId,
        id: FileId,
        owner_id: String,
        created_by: String,
        updated_by: String,
        name: String,
        original_name: String,
        category: String,
        title: String,
        visibility: Readable<Visibility>,
        version: i32,
        content_state: Readable<ContentState>,
        scan_status: Readable<ScanStatus>,
        mime_type: String,
        declared_mime_type: String,
        media_kind: Readable<MediaKind>,
        size_bytes: i64,
        sha256: Readable<Option<Digest>>,
        revision: i64,
        create_time: Readable<Timestamp>,
        update_time: Readable<Timestamp>,
        delete_time: Readable<Option<Timestamp>>,
        purge_time: Readable<Option<Timestamp>>,
        archive_time: Readable<Option<Timestamp>>,
        expire_time: Readable<Option<Timestamp>>,
        deletion_time: Readable<Option<Timestamp>>,
        retain_until_time: Readable<Option<Timestamp>>,
        hold_time: Readable<Option<Timestamp>>,
        hold_by: Option<String>,
        hold_reason: Option<String>,
        state_reason: Readable<Option<StateReason>>,
    }
    large {
        description: String = "".into_sql::<Text>(), "''::text";
        metadata: Readable<serde_json::Value> = serde_json::json!({}).into_sql::<Jsonb>(), "'{}'::jsonb";
    }
}

pub(super) use basic_row;

impl FileRow {
    /// Converts the row to a file without tags and attachments, which are in other tables.
    ///
    /// If columns cannot be read, the file is in state ERROR, for the reason that its record is damaged. Their
    /// values are replaced with those that protect the file best: the narrowest visibility and the latest
    /// times.
    pub(super) fn into_file(self) -> File {
        let mut damage = Damage::default();
        let d = &mut damage;
        let latest = Some(TIMESTAMP_MAX);
        let null = serde_json::Value::Null;
        let metadata = match self.metadata.or_damaged("metadata", d, null) {
            serde_json::Value::Object(metadata) => metadata,
            _ => {
                d.add("metadata", "is not an object");
                serde_json::Map::new()
            }
        };
        let delete_time = self.delete_time.or_damaged("delete_time", d, latest);
        let purge_time = self.purge_time.or_damaged("purge_time", d, latest);
        let hold_time = self.hold_time.or_damaged("hold_time", d, latest);
        let mut file = File {
            id: self.id,
            tenant_id: self.tenant_id,
            owner_id: self.owner_id,
            created_by: self.created_by,
            updated_by: self.updated_by,
            name: self.name,
            original_name: self.original_name,
            category: self.category,
            title: self.title,
            description: self.description,
            metadata,
            tags: Vec::new(),
            attachments: Vec::new(),
            visibility: self.visibility.or_damaged("visibility", d, Visibility::Owner),
            version: self.version,
            content_state: self.content_state.or_damaged("content_state", d, ContentState::Error),
            scan_status: self.scan_status.or_damaged("scan_status", d, ScanStatus::NotScanned),
            mime_type: self.mime_type,
            declared_mime_type: self.declared_mime_type,
            media_kind: self.media_kind.or_damaged("media_kind", d, MediaKind::Other),
            size_bytes: u64::try_from(self.size_bytes).unwrap_or_else(|error| {
                d.add("size_bytes", error);
                0
            }),
            sha256: self.sha256.or_damaged("sha256", d, None),
            revision: self.revision,
            create_time: self.create_time.or_damaged("create_time", d, TIMESTAMP_MAX),
            update_time: self.update_time.or_damaged("update_time", d, TIMESTAMP_MAX),
            trash: delete_time
                .zip(purge_time)
                .map(|(delete_time, purge_time)| Trash { delete_time, purge_time }),
            archive_time: self.archive_time.or_damaged("archive_time", d, latest),
            expire_time: self.expire_time.or_damaged("expire_time", d, latest),
            deletion_time: self.deletion_time.or_damaged("deletion_time", d, latest),
            retain_until_time: self.retain_until_time.or_damaged("retain_until_time", d, latest),
            hold: LegalHold::from_columns(hold_time, self.hold_by, self.hold_reason),
            access: None,
            state_reason: self.state_reason.or_damaged("state_reason", d, None),
        };
        if let Some(columns) = damage.found() {
            file.mark_record_damaged(&columns);
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_columns_have_constants_for_large_ones() {
        let names = |columns: &str| -> Vec<String> {
            let names = columns.split(", ").map(|column| column.rsplit([' ', '.']).next().unwrap());
            names.map(str::to_owned).collect()
        };
        assert_eq!(names(COLUMNS), names(BASIC_COLUMNS));
        assert!(COLUMNS.starts_with("f.tenant_id, f.id, ") && COLUMNS.ends_with("f.description, f.metadata"));
        assert!(BASIC_COLUMNS.ends_with(", ''::text AS description, '{}'::jsonb AS metadata"));
    }
}
