//! `ExportTenant`: all records of a tenant for operators.

use strongroom::proto::{
    admin::v1::{ActorKind, export_tenant_response::Record},
    v1::{CreateShareRequest, FilePermission, Share, ShareType},
};

use crate::{
    grants::{To, grant_request},
    harness::{PART, file_id, reason, service_test, spec},
    tenants::create_tenant_content,
};

#[test]
fn export_returns_all_records_and_is_audited() {
    service_test(|s| async move {
        let small = create_tenant_content(&s).await;
        s.mallory().upload(spec("theirs"), b"kept").await.unwrap();
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        operator.suspend_tenant(&acme).await.unwrap();
        // Entries of the same time have an order of their own only if one connection wrote them.
        s.clock.advance(chrono::Duration::seconds(1));
        let records = operator.export_tenant(&acme).await.unwrap();
        let Record::Tenant(tenant) = &records[0] else { panic!("{:?}", records[0]) };
        assert_eq!(tenant.tenant.as_ref().unwrap().id, acme);
        assert_eq!(tenant.policy.as_ref().unwrap().preset, "general");
        let Record::Quota(quota) = &records[1] else { panic!("{:?}", records[1]) };
        assert_eq!(quota.used_bytes, 5 + 3 * PART as i64);
        let Record::File(file) = &records[2] else { panic!("{:?}", records[2]) };
        assert_eq!((file.id.as_str(), file.tags.len(), file.attachments.len()), (small.as_str(), 1, 1));
        let Record::Version(version) = &records[3] else { panic!("{:?}", records[3]) };
        assert_eq!((version.file_id.as_str(), version.version, version.size_bytes), (small.as_str(), 1, 5));
        let objects = s.store.list("", None, 10).await.unwrap().objects;
        assert!(
            objects.iter().any(|object| object.key.as_str() == version.storage_key),
            "the storage key belongs to an object"
        );
        let count = |is_it: fn(&Record) -> bool| records.iter().filter(|record| is_it(record)).count();
        assert_eq!(
            count(|record| matches!(record, Record::File(_))),
            2,
            "with the trash, without other tenants"
        );
        assert_eq!(count(|record| matches!(record, Record::Version(_))), 2);
        let entries = s
            .superuser
            .query_number(&format!("SELECT count(*) FROM audit_entries WHERE tenant_id = '{acme}'"))
            .await;
        assert_eq!(count(|record| matches!(record, Record::AuditEntry(_))) as i64, entries);
        let Some(Record::AuditEntry(last)) = records.last() else { panic!("{records:?}") };
        assert_eq!((last.action.as_str(), last.actor_kind()), ("tenant_export", ActorKind::Operator));

        operator.delete_tenant(&acme, false).await.unwrap();
        assert_eq!(reason(&operator.export_tenant(&acme).await.unwrap_err()), "TENANT_DELETED");
    });
}

#[test]
fn export_contains_shares_grants_and_quotas_of_users() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let file = file_id(&alice.upload(spec("a"), b"x").await.unwrap());
        let to_bob = grant_request(&file, To::User("bob"), FilePermission::View);
        alice.shares.clone().grant_access(to_bob).await.unwrap();
        // More than one page.
        for n in 0..201 {
            let share = Share { file_id: file.clone(), note: n.to_string(), ..Share::default() };
            let request = CreateShareRequest { share: Some(share), ..CreateShareRequest::default() };
            alice.shares.clone().create_share(request).await.unwrap();
        }
        let users = Share {
            file_id: file.clone(),
            r#type: ShareType::Users.into(),
            user_ids: vec!["carol".to_owned(), "dave".to_owned()],
            ..Share::default()
        };
        let request = CreateShareRequest { share: Some(users), ..CreateShareRequest::default() };
        alice.shares.clone().create_share(request).await.unwrap();
        ada.set_user_limit("alice", 1_000).await;
        s.mallory().upload(spec("theirs"), b"kept").await.unwrap();

        let records = s.operator().export_tenant(&ada.tenant_id().await).await.unwrap();
        let mut shares: Vec<&Share> = records
            .iter()
            .filter_map(|record| if let Record::Share(share) = record { Some(share) } else { None })
            .collect();
        assert_eq!(shares.len(), 202);
        let with_recipients = shares.pop().unwrap();
        assert_eq!(with_recipients.user_ids, ["carol", "dave"]);
        assert_eq!(shares[0].file_id, file);
        let mut grants: Vec<_> = records
            .iter()
            .filter_map(
                |record| if let Record::Grant(grant) = record { Some(grant.principal.clone()) } else { None },
            )
            .map(|principal| format!("{principal:?}"))
            .collect();
        grants.sort();
        assert_eq!(grants.len(), 3, "{grants:?}");
        assert!(grants[0].contains("bob") && grants[2].contains("dave"), "{grants:?}");
        let limits = records.iter().filter(|record| {
            matches!(record, Record::UserQuota(quota) if quota.user_id == "alice" && quota.limit_bytes == Some(1_000))
        });
        assert_eq!(limits.count(), 1);
    });
}

#[test]
fn export_of_several_pages_is_complete() {
    service_test(|s| async move {
        let uploads = (0..450).map(|n| {
            let alice = s.alice();
            async move { alice.upload(spec(&format!("file {n}")), b"x").await.unwrap() }
        });
        futures::future::join_all(uploads).await;
        let records = s.operator().export_tenant(&s.alice().tenant_id().await).await.unwrap();
        let mut files: Vec<_> = records
            .iter()
            .filter_map(|record| if let Record::File(file) = record { Some(file.id.clone()) } else { None })
            .collect();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), 450);
        assert_eq!(records.iter().filter(|record| matches!(record, Record::Version(_))).count(), 450);
    });
}

#[test]
fn export_lists_versions_after_their_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut expected = Vec::new();
        for (name, version_count) in [("first", 2), ("changed often", 450), ("last", 1)] {
            let id = file_id(&alice.upload(spec(name), b"x").await.unwrap());
            expected.push((id.clone(), None));
            expected.push((id.clone(), Some(1)));
            for version in 2..=version_count {
                match version {
                    2 => alice.upload_version(&id, b"y").await.unwrap(),
                    _ => alice.restore_version(&id, 1).await.unwrap(),
                };
                expected.push((id.clone(), Some(version)));
            }
        }
        let records = s.operator().export_tenant(&alice.tenant_id().await).await.unwrap();
        let exported = records.into_iter().filter_map(|record| match record {
            Record::File(file) => Some((file.id, None)),
            Record::Version(version) => Some((version.file_id, Some(version.version))),
            _ => None,
        });
        assert_eq!(exported.collect::<Vec<_>>(), expected);
    });
}
