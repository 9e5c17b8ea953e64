//! The result of comparing one store with the database.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    db::unknown_objects::AffectedVersion,
    domain::{clock::Timestamp, ids::TenantId, lost_hours::LostHours},
    storage::ObjectInfo,
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The upper ends of the groups by age. Older objects are the last group.
const AGES: [Duration; 3] = [HOUR, DAY, Duration::from_secs(7 * 24 * 3_600)];

/// A number of objects and their total size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ObjectTotals {
    pub count: u64,
    pub bytes: u64,
}

impl ObjectTotals {
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Where an object that the database does not know may be from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownOrigin {
    /// The lost hours of a restore: it may be a file.
    LostHours,
    /// An earlier time. Sweeps should have deleted it.
    Overdue,
    /// An upload in progress, or a crash whose objects no sweep has deleted yet.
    Recent,
}

/// An object that the database does not know.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UnknownObject {
    pub tenant: TenantId,
    pub key: String,
    pub size_bytes: u64,
    /// The time of the object in its store.
    pub modify_time: Timestamp,
    pub origin: UnknownOrigin,
}

/// An object of the lost hours that the decision did not include.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeftObject {
    pub tenant: TenantId,
    pub key: String,
    pub size_bytes: u64,
    pub reason: String,
}

/// A blob whose object the store lacks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MissingBlob {
    pub tenant: TenantId,
    pub key: String,
    pub size_bytes: u64,
    /// The versions that reference it, at most 20.
    pub versions: Vec<AffectedVersion>,
}

/// The unknown objects up to an age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct AgeGroup {
    /// The age in seconds that the objects are younger than; `None` for all older ones.
    pub age_seconds_max: Option<u64>,
    #[serde(flatten)]
    pub totals: ObjectTotals,
}

/// The result of comparing one store with the database.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RestoreReport {
    pub provider: String,
    /// Whether the store belongs to this database.
    pub is_owner: bool,
    /// The lost hours of each restore. For a store that was not adopted yet, the last ones end now.
    pub restores: Vec<LostHours>,
    /// The number of objects that the store listed.
    pub listed_objects: u64,
    /// The number of objects with another prefix or of a tenant that is not in this database.
    pub foreign: u64,
    /// Objects of the lost hours whose tenant is not in this database. They may belong to a tenant that was created in
    /// these hours. No sweep deletes them.
    pub foreign_lost_hours: ObjectTotals,
    /// Unknown objects of the lost hours.
    pub lost_hours: ObjectTotals,
    /// Other unknown objects that sweeps should have deleted.
    pub overdue: ObjectTotals,
    /// Other unknown objects.
    pub recent: ObjectTotals,
    /// All unknown objects by age.
    pub ages: Vec<AgeGroup>,
    /// All unknown objects by tenant.
    pub tenants: BTreeMap<String, ObjectTotals>,
    /// The first unknown objects.
    pub objects: Vec<UnknownObject>,
    /// The number of blobs whose object was looked up.
    pub checked_blobs: u64,
    /// Blobs whose object is missing.
    pub missing: ObjectTotals,
    /// The first of them.
    pub missing_blobs: Vec<MissingBlob>,
    /// Objects that became files again.
    pub readopted: ObjectTotals,
    /// Objects that were quarantined.
    pub quarantined: ObjectTotals,
    /// Objects that sweeps will delete.
    pub discarded: ObjectTotals,
    /// Objects of the lost hours that the decision did not include.
    pub left: ObjectTotals,
    /// The first of them.
    pub left_objects: Vec<LeftObject>,
    /// All objects that are quarantined now, including earlier ones.
    pub quarantine: ObjectTotals,
    #[serde(skip)]
    pub(super) entries_max: usize,
}

impl RestoreReport {
    pub(super) fn new(provider: &str, entries_max: usize) -> Self {
        let ages = AGES.iter().map(|age| Some(age.as_secs())).chain([None]);
        let ages = ages
            .map(|age_seconds_max| AgeGroup { age_seconds_max, totals: ObjectTotals::default() })
            .collect();
        Self {
            provider: provider.to_owned(),
            is_owner: false,
            restores: Vec::new(),
            listed_objects: 0,
            foreign: 0,
            foreign_lost_hours: ObjectTotals::default(),
            lost_hours: ObjectTotals::default(),
            overdue: ObjectTotals::default(),
            recent: ObjectTotals::default(),
            ages,
            tenants: BTreeMap::new(),
            objects: Vec::new(),
            checked_blobs: 0,
            missing: ObjectTotals::default(),
            missing_blobs: Vec::new(),
            readopted: ObjectTotals::default(),
            quarantined: ObjectTotals::default(),
            discarded: ObjectTotals::default(),
            left: ObjectTotals::default(),
            left_objects: Vec::new(),
            quarantine: ObjectTotals::default(),
            entries_max,
        }
    }

    /// Returns whether an operator has something to do: to decide about lost hours, or to look at unknown objects that
    /// no sweep deleted, or at missing objects.
    pub fn has_findings(&self) -> bool {
        let is_undecided =
            self.restores.iter().any(LostHours::is_undecided) && (self.is_owner || self.lost_hours.count > 0);
        is_undecided || self.left.count + self.overdue.count + self.missing.count > 0
    }

    pub(super) fn add_unknown(&mut self, object: &ObjectInfo, origin: UnknownOrigin, age: Duration) {
        let bytes = object.size_bytes;
        match origin {
            UnknownOrigin::LostHours => self.lost_hours.add(bytes),
            UnknownOrigin::Overdue => self.overdue.add(bytes),
            UnknownOrigin::Recent => self.recent.add(bytes),
        }
        let is_in = |group: &&mut AgeGroup| group.age_seconds_max.is_none_or(|max| age.as_secs() < max);
        if let Some(group) = self.ages.iter_mut().find(is_in) {
            group.totals.add(bytes);
        }
        self.tenants.entry(object.key.tenant().to_string()).or_default().add(bytes);
        if self.objects.len() < self.entries_max {
            self.objects.push(UnknownObject {
                tenant: object.key.tenant(),
                key: object.key.to_string(),
                size_bytes: bytes,
                modify_time: object.modify_time,
                origin,
            });
        }
    }

    pub(super) fn add_left(&mut self, object: &ObjectInfo, reason: String) {
        self.left.add(object.size_bytes);
        if self.left_objects.len() < self.entries_max {
            self.left_objects.push(LeftObject {
                tenant: object.key.tenant(),
                key: object.key.to_string(),
                size_bytes: object.size_bytes,
                reason,
            });
        }
    }

    /// Adds a blob whose object is missing.
    pub(super) fn add_missing(&mut self, missing: MissingBlob) {
        self.missing.add(missing.size_bytes);
        if self.missing_blobs.len() < self.entries_max {
            self.missing_blobs.push(missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{ids::BlobId, object_key::ObjectKey};

    fn object(blob: u128, size_bytes: u64) -> ObjectInfo {
        let day = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap();
        let (tenant, blob) =
            (TenantId::from_uuid(Uuid::from_u128(1)), BlobId::from_uuid(Uuid::from_u128(blob)));
        let key = ObjectKey::for_blob("live", tenant, "document", day, blob).unwrap();
        ObjectInfo { key, size_bytes, modify_time: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn unknown_objects_are_counted_and_the_first_listed() {
        let mut report = RestoreReport::new("local", 2);
        for (blob, age) in [(1, Duration::ZERO), (2, HOUR), (3, DAY * 30)] {
            report.add_unknown(&object(blob, 10), UnknownOrigin::Recent, age);
        }
        let counts: Vec<u64> = report.ages.iter().map(|group| group.totals.count).collect();
        assert_eq!((counts, report.objects.len()), (vec![1, 1, 0, 1], 2));
        assert_eq!(report.tenants.values().next(), Some(&ObjectTotals { count: 3, bytes: 30 }));
        assert!(!report.has_findings(), "an upload in progress is no finding");
        report.add_unknown(&object(4, 10), UnknownOrigin::Overdue, DAY * 30);
        assert!(report.has_findings());
    }
}
