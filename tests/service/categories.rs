//! Categories, as a tenant's admins edit them.

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
        let answer = self.policies.clone().get_policy(GetPolicyRequest {}).await?;
        Ok(answer.into_inner().policy.unwrap())
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

fn of<'a>(policy: &'a Policy, name: &str) -> Option<&'a Category> {
    policy.categories.iter().find(|category| category.name == name)
}

#[test]
fn an_admin_adds_a_category_and_the_next_upload_goes_by_it() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let before = alice.policy().await.unwrap();
        assert_eq!((before.preset.as_str(), before.categories.len()), ("general", 9));
        assert_eq!(violated_fields(&alice.upload_to("invoices", "a").await.unwrap_err()), ["spec.category"]);

        let added =
            Category { types: vec!["text/plain".to_owned()], ..category("invoices", Visibility::Owner) };
        let after = ada.create_category(added.clone()).await.unwrap();
        assert_eq!(of(&after, "invoices"), Some(&added));
        assert_ne!(after.etag, before.etag);
        assert_eq!(alice.policy().await.unwrap(), after);

        let id = alice.upload_to("invoices", "a").await.unwrap();
        assert_eq!(alice.get(&id).await.unwrap().visibility(), Visibility::Owner);
        assert_eq!(s.bob().get(&id).await.unwrap_err().code(), Code::NotFound);
        let key = s.owner.texts("SELECT storage_key FROM blobs").await;
        assert!(key[0].contains("/invoices/"), "{key:?}");
        let pdf = UploadSpec { category: "invoices".to_owned(), ..spec("a.pdf") };
        let refused = alice.upload(pdf, b"%PDF-1.7\n").await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["spec.mime_type"]);

        let written =
            "SELECT count(*) FROM audit_entries WHERE action = 50 AND is_allowed AND actor_id = 'ada'";
        assert_eq!(s.owner.number(written).await, 1);
        assert!(
            of(&s.mallory().policy().await.unwrap(), "invoices").is_none(),
            "each tenant has its own copy"
        );
    });
}

#[test]
fn an_update_changes_new_files_and_leaves_those_that_are_there() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let old = alice.upload_to("report", "a").await.unwrap();
        let changed =
            ada.update_category(category("report", Visibility::Managers), &["visibility"]).await.unwrap();
        assert_eq!(of(&changed, "report").unwrap().visibility(), Visibility::Managers);
        let new = alice.upload_to("report", "b").await.unwrap();
        assert!(s.bob().get(&old).await.is_ok());
        assert_eq!(s.bob().get(&new).await.unwrap_err().code(), Code::NotFound);
        assert!(s.maria().get(&new).await.is_ok());

        let default = Category { is_default: true, ..category("report", Visibility::Unspecified) };
        let changed = ada.update_category(default, &["is_default"]).await.unwrap();
        let defaults: Vec<_> = changed.categories.iter().filter(|category| category.is_default).collect();
        assert_eq!((defaults.len(), defaults[0].name.as_str()), (1, "report"));
        let named_none = alice.upload_to("", "c").await.unwrap();
        assert_eq!(alice.get(&named_none).await.unwrap().category, "report");
    });
}

#[test]
fn a_category_that_has_files_is_kept_also_when_they_are_in_the_trash() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = alice.upload_to("report", "a").await.unwrap();
        for _ in 0..2 {
            let refused = ada.delete_category("report").await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::FailedPrecondition, "CATEGORY_IN_USE")
            );
            alice.delete(&id).await.unwrap();
        }
        alice.purge(&id).await.unwrap();
        let after = ada.delete_category("report").await.unwrap();
        assert!(of(&after, "report").is_none());
        assert_eq!(violated_fields(&alice.upload_to("report", "b").await.unwrap_err()), ["spec.category"]);
        assert_eq!(ada.delete_category("report").await.unwrap_err().code(), Code::NotFound);
        let default = ada.delete_category("media_resource").await.unwrap_err();
        assert_eq!(reason(&default), "CATEGORY_IN_USE");
    });
}

#[test]
fn no_file_is_born_into_a_category_that_went_while_it_was_on_its_way() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = vec![b'a'; 3 * PART];
        let (sent, messages) = futures::channel::mpsc::unbounded();
        let told = UploadSpec { category: "report".to_owned(), ..spec("a.txt") };
        sent.unbounded_send(spec_message(told)).unwrap();
        sent.unbounded_send(chunk(0, &data[..2 * PART])).unwrap();
        let mut files = alice.files.clone();
        let upload = tokio::spawn(async move { files.upload_file(messages).await });
        s.until("the upload is open", || async {
            s.owner.number("SELECT count(*) FROM uploads WHERE state = 1").await == 1
        })
        .await;
        s.ada().delete_category("report").await.unwrap();
        sent.unbounded_send(chunk(2 * PART, &data[2 * PART..])).unwrap();
        sent.unbounded_send(finish(data.len())).unwrap();
        drop(sent);
        let refused = upload.await.unwrap().unwrap_err();
        assert_eq!(
            (refused.code(), violated_fields(&refused)),
            (Code::InvalidArgument, vec!["spec.category".into()])
        );
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn another_replica_goes_by_an_edit_after_ten_seconds_at_the_latest() {
    service_test(|s| async move {
        let other = s.replica(|_| {}).await;
        other.alice().upload_to("report", "a").await.unwrap();
        s.ada().create_category(category("invoices", Visibility::Owner)).await.unwrap();
        assert_eq!(
            violated_fields(&other.alice().upload_to("invoices", "a").await.unwrap_err()),
            ["spec.category"],
            "it remembers the tenant as it was"
        );
        s.clock.advance(Duration::seconds(10));
        other.alice().upload_to("invoices", "b").await.unwrap();
        other.stopped().await;
    });
}

#[test]
fn an_edit_that_is_wrong_changes_nothing_and_names_all_that_is_wrong() {
    service_test(|s| async move {
        let ada = s.ada();
        let before = ada.policy().await.unwrap();
        let bad = Category { types: vec!["PNG".to_owned()], ..category("Bad Name", Visibility::Unspecified) };
        let refused = ada.create_category(bad).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["category.name", "category.types[0]", "category.visibility"]);
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
fn only_admins_edit_and_their_denials_are_written_down() {
    service_test(|s| async move {
        for caller in [s.alice(), s.maria(), s.billing()] {
            for refused in [
                caller.create_category(category("invoices", Visibility::Owner)).await,
                caller.update_category(category("report", Visibility::Owner), &["visibility"]).await,
                caller.delete_category("report").await,
            ] {
                assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
            }
        }
        assert_eq!(s.owner.number("SELECT count(*) FROM audit_entries WHERE NOT is_allowed").await, 9);
    });
}

#[test]
fn a_retried_edit_has_one_effect_and_one_answer() {
    service_test(|s| async move {
        let ada = s.ada();
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let request = CreateCategoryRequest {
            category: Some(category("invoices", Visibility::Owner)),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let first = ada.policies.clone().create_category(request.clone()).await.unwrap().into_inner();
        let gone = DeleteCategoryRequest {
            name: "invoices".to_owned(),
            request_id: uuid::Uuid::from_u128(8).to_string(),
            ..Default::default()
        };
        let deleted = ada.policies.clone().delete_category(gone.clone()).await.unwrap().into_inner();
        let again = ada.policies.clone().create_category(request).await.unwrap().into_inner();
        assert_eq!(again, first, "answered as the first time");
        assert!(of(&ada.policy().await.unwrap(), "invoices").is_none(), "and done once");
        ada.create_category(category("invoices", Visibility::Owner)).await.unwrap();
        s.alice().upload_to("invoices", "a").await.unwrap();
        let again = ada.policies.clone().delete_category(gone).await.unwrap().into_inner();
        assert_eq!(again, deleted, "also when it could not be done any more");
        let other = DeleteCategoryRequest { name: "report".to_owned(), request_id, ..Default::default() };
        assert_eq!(
            reason(&ada.policies.clone().delete_category(other).await.unwrap_err()),
            "REQUEST_ID_REUSED"
        );
    });
}
