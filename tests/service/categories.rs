//! Categories and the RPCs with which a tenant's admins edit them.

use chrono::Duration;
use strongroom::proto::v1::{
    Category, CreateCategoryRequest, DeleteCategoryRequest, GetPolicyRequest, Policy, UpdateCategoryRequest,
    UploadSpec, Visibility,
};
use tonic::{Code, Status};

use crate::harness::{
    Caller, PART, chunk, file_id, finish, reason, service_test, spec, spec_message, violated_fields,
};

impl Caller {
    pub(crate) async fn policy(&self) -> Result<Policy, Status> {
        let response = self.policies.clone().get_policy(GetPolicyRequest {}).await?;
        Ok(response.into_inner().policy.unwrap())
    }

    pub(crate) async fn create_category(&self, category: Category) -> Result<Policy, Status> {
        let request = CreateCategoryRequest { category: Some(category), ..Default::default() };
        Ok(self.policies.clone().create_category(request).await?.into_inner().policy.unwrap())
    }

    pub(crate) async fn update_category(&self, category: Category, paths: &[&str]) -> Result<Policy, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = UpdateCategoryRequest {
            category: Some(category),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        Ok(self.policies.clone().update_category(request).await?.into_inner().policy.unwrap())
    }

    pub(crate) async fn delete_category(&self, name: &str) -> Result<Policy, Status> {
        let request = DeleteCategoryRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.policies.clone().delete_category(request).await?.into_inner().policy.unwrap())
    }

    async fn upload_to(&self, category: &str, name: &str) -> Result<String, Status> {
        let spec = UploadSpec { category: category.to_owned(), ..spec(name) };
        Ok(file_id(&self.upload(spec, b"some text").await?))
    }
}

pub(crate) fn category(name: &str, visibility: Visibility) -> Category {
    Category { name: name.to_owned(), visibility: visibility.into(), ..Category::default() }
}

fn find_category<'a>(policy: &'a Policy, name: &str) -> Option<&'a Category> {
    policy.categories.iter().find(|category| category.name == name)
}

#[test]
fn created_category_applies_to_next_upload() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let before = alice.policy().await.unwrap();
        assert_eq!((before.preset.as_str(), before.categories.len()), ("general", 9));
        assert_eq!(violated_fields(&alice.upload_to("invoices", "a").await.unwrap_err()), ["spec.category"]);

        let added =
            Category { types: vec!["text/plain".to_owned()], ..category("invoices", Visibility::Owner) };
        let after = ada.create_category(added.clone()).await.unwrap();
        assert_eq!(find_category(&after, "invoices"), Some(&added));
        assert_ne!(after.etag, before.etag);
        assert_eq!(alice.policy().await.unwrap(), after);

        let id = alice.upload_to("invoices", "a").await.unwrap();
        assert_eq!(alice.get(&id).await.unwrap().visibility(), Visibility::Owner);
        assert_eq!(s.bob().get(&id).await.unwrap_err().code(), Code::NotFound);
        let key = s.superuser.query_texts("SELECT storage_key FROM blobs").await;
        assert!(key[0].contains("/invoices/"), "{key:?}");
        let pdf = UploadSpec { category: "invoices".to_owned(), ..spec("a.pdf") };
        let error = alice.upload(pdf, b"%PDF-1.7\n").await.unwrap_err();
        assert_eq!(violated_fields(&error), ["spec.mime_type"]);

        let entries = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.policy_update}
            AND is_allowed AND actor_id = 'ada'";
        assert_eq!(s.superuser.query_number(entries).await, 1);
        assert!(
            find_category(&s.mallory().policy().await.unwrap(), "invoices").is_none(),
            "each tenant has its own categories"
        );
    });
}

#[test]
fn category_update_applies_to_new_files_only() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let old = alice.upload_to("report", "a").await.unwrap();
        let changed =
            ada.update_category(category("report", Visibility::Managers), &["visibility"]).await.unwrap();
        assert_eq!(find_category(&changed, "report").unwrap().visibility(), Visibility::Managers);
        let new = alice.upload_to("report", "b").await.unwrap();
        assert!(s.bob().get(&old).await.is_ok());
        assert_eq!(s.bob().get(&new).await.unwrap_err().code(), Code::NotFound);
        assert!(s.maria().get(&new).await.is_ok());

        let default = Category { is_default: true, ..category("report", Visibility::Unspecified) };
        let changed = ada.update_category(default, &["is_default"]).await.unwrap();
        let defaults: Vec<_> = changed.categories.iter().filter(|category| category.is_default).collect();
        assert_eq!((defaults.len(), defaults[0].name.as_str()), (1, "report"));
        let in_default = alice.upload_to("", "c").await.unwrap();
        assert_eq!(alice.get(&in_default).await.unwrap().category, "report");
    });
}

#[test]
fn category_with_files_in_trash_cannot_be_deleted() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = alice.upload_to("report", "a").await.unwrap();
        for _ in 0..2 {
            let error = ada.delete_category("report").await.unwrap_err();
            assert_eq!(
                (error.code(), reason(&error).as_str()),
                (Code::FailedPrecondition, "CATEGORY_IN_USE")
            );
            alice.delete(&id).await.unwrap();
        }
        alice.purge(&id).await.unwrap();
        let after = ada.delete_category("report").await.unwrap();
        assert!(find_category(&after, "report").is_none());
        assert_eq!(violated_fields(&alice.upload_to("report", "b").await.unwrap_err()), ["spec.category"]);
        assert_eq!(ada.delete_category("report").await.unwrap_err().code(), Code::NotFound);
        let default = ada.delete_category("media_resource").await.unwrap_err();
        assert_eq!(reason(&default), "CATEGORY_IN_USE");
    });
}

#[test]
fn upload_fails_if_its_category_is_deleted() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = vec![b'a'; 3 * PART];
        let (sent, messages) = futures::channel::mpsc::unbounded();
        let spec = UploadSpec { category: "report".to_owned(), ..spec("a.txt") };
        sent.unbounded_send(spec_message(spec)).unwrap();
        sent.unbounded_send(chunk(0, &data[..2 * PART])).unwrap();
        let mut files = alice.files.clone();
        let upload = tokio::spawn(async move { files.upload_file(messages).await });
        s.wait_until("the upload is open", || async {
            s.superuser.query_number("SELECT count(*) FROM uploads WHERE state = {upload_state.open}").await
                == 1
        })
        .await;
        s.ada().delete_category("report").await.unwrap();
        sent.unbounded_send(chunk(2 * PART, &data[2 * PART..])).unwrap();
        sent.unbounded_send(finish(data.len())).unwrap();
        drop(sent);
        let error = upload.await.unwrap().unwrap_err();
        assert_eq!(
            (error.code(), violated_fields(&error)),
            (Code::InvalidArgument, vec!["spec.category".into()])
        );
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn other_replica_sees_category_within_ten_seconds() {
    service_test(|s| async move {
        let other = s.start_replica(|_| {}).await;
        other.alice().upload_to("report", "a").await.unwrap();
        s.ada().create_category(category("invoices", Visibility::Owner)).await.unwrap();
        assert_eq!(
            violated_fields(&other.alice().upload_to("invoices", "a").await.unwrap_err()),
            ["spec.category"],
            "the replica still caches the old policy"
        );
        s.clock.advance(Duration::seconds(10));
        other.alice().upload_to("invoices", "b").await.unwrap();
        other.stop().await;
    });
}

#[test]
fn rejected_edit_changes_nothing_and_lists_all_violations() {
    service_test(|s| async move {
        let ada = s.ada();
        let before = ada.policy().await.unwrap();
        let bad = Category { types: vec!["PNG".to_owned()], ..category("Bad Name", Visibility::Unspecified) };
        let error = ada.create_category(bad).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["category.name", "category.types[0]", "category.visibility"]);
        let taken = ada.create_category(category("report", Visibility::Owner)).await.unwrap_err();
        assert_eq!((taken.code(), reason(&taken).as_str()), (Code::AlreadyExists, "CATEGORY_EXISTS"));
        let none =
            ada.update_category(category("nonsense", Visibility::Owner), &["visibility"]).await.unwrap_err();
        assert_eq!(none.code(), Code::NotFound);
        let stale = CreateCategoryRequest {
            category: Some(category("invoices", Visibility::Owner)),
            if_etag: "0".to_owned(),
            ..Default::default()
        };
        let stale = ada.policies.clone().create_category(stale).await.unwrap_err();
        assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        assert_eq!(ada.policy().await.unwrap(), before);
    });
}

#[test]
fn only_admins_edit_categories_and_denials_are_audited() {
    service_test(|s| async move {
        // A denied call creates no tenant, and so no audit log.
        s.alice().quota().await.unwrap();
        for caller in [s.alice(), s.maria(), s.billing()] {
            for result in [
                caller.create_category(category("invoices", Visibility::Owner)).await,
                caller.update_category(category("report", Visibility::Owner), &["visibility"]).await,
                caller.delete_category("report").await,
            ] {
                assert_eq!(result.unwrap_err().code(), Code::PermissionDenied);
            }
        }
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM audit_entries WHERE NOT is_allowed").await,
            9
        );
    });
}

#[test]
fn retried_category_edit_has_one_effect_and_same_response() {
    service_test(|s| async move {
        let ada = s.ada();
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let request = CreateCategoryRequest {
            category: Some(category("invoices", Visibility::Owner)),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let first = ada.policies.clone().create_category(request.clone()).await.unwrap().into_inner();
        let delete = DeleteCategoryRequest {
            name: "invoices".to_owned(),
            request_id: uuid::Uuid::from_u128(8).to_string(),
            ..Default::default()
        };
        let deleted = ada.policies.clone().delete_category(delete.clone()).await.unwrap().into_inner();
        let again = ada.policies.clone().create_category(request).await.unwrap().into_inner();
        assert_eq!(again, first, "the retry returns the first response");
        assert!(
            find_category(&ada.policy().await.unwrap(), "invoices").is_none(),
            "the retry does not create the category again"
        );
        ada.create_category(category("invoices", Visibility::Owner)).await.unwrap();
        s.alice().upload_to("invoices", "a").await.unwrap();
        let again = ada.policies.clone().delete_category(delete).await.unwrap().into_inner();
        assert_eq!(again, deleted, "the retry returns the first response even if a deletion would fail now");
        let other = DeleteCategoryRequest { name: "report".to_owned(), request_id, ..Default::default() };
        assert_eq!(
            reason(&ada.policies.clone().delete_category(other).await.unwrap_err()),
            "REQUEST_ID_REUSED"
        );
    });
}
