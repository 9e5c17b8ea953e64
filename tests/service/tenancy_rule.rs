//! Row-level security and `access::can_see` implement the same rule, and must agree.

use std::sync::Arc;

use strongroom::{
    app::access::can_see,
    db::{
        Viewer,
        files::{self, VisibleFile},
    },
    domain::{
        caller::{Actor, ActorKind, Caller, Origin, Role, Tenant, TenantKind, TenantState},
        ids::FileId,
        policy::Policy,
        principal::{caller_principal, group_principal},
        rate_limits::RequestLimits,
    },
    proto::v1::{UploadSpec, Visibility},
};

use crate::harness::{SCHOOL, Service, file_id, service_test, spec};

const ROLES: [Role; 3] = [Role::Member, Role::Manager, Role::Admin];
const GROUPS: [&[&str]; 3] = [&[], &["8b", "7a"], &["8b"]];

/// Returns a caller as the service creates it from a token.
fn caller_of(tenant: &str, user: &str, role: Role, groups: &[&str]) -> Caller {
    Caller {
        tenant: Arc::new(Tenant {
            id: tenant.parse().unwrap(),
            kind: TenantKind::Organization,
            state: TenantState::Active,
            is_read_only: false,
            rate_limits: RequestLimits::default(),
            policy: Policy::preset("education").unwrap(),
        }),
        actor: Actor { kind: ActorKind::User, id: user.to_owned() },
        role,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        scopes: Vec::new(),
        origin: Origin::default(),
        first_call: None,
    }
}

/// Uploads files of every visibility, without a share, shared with a user and shared with a group. Returns
/// their ids.
async fn upload_files(s: &Service) -> Vec<String> {
    let mut ids = Vec::new();
    for visibility in [Visibility::Owner, Visibility::Managers, Visibility::Organization, Visibility::Public]
    {
        for principal in [None, Some(caller_principal("friend")), Some(group_principal("7a"))] {
            let spec_with_visibility = UploadSpec { visibility: visibility.into(), ..spec("a") };
            let id = file_id(&s.pupil().upload(spec_with_visibility, b"x").await.unwrap());
            if let Some(principal) = principal {
                s.superuser
                    .query_rows(
                        "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
                         SELECT tenant_id, $1, id, create_time, name, size_bytes FROM files WHERE id = $2::text::uuid",
                        &[&principal, &id],
                    )
                    .await;
            }
            ids.push(id);
        }
    }
    ids
}

#[test]
fn row_level_security_agrees_with_can_see() {
    service_test(|s| async move {
        let ids = upload_files(&s).await;
        let (school, acme) = (s.pupil().tenant_id().await, s.alice().tenant_id().await);
        let admin = caller_of(&school, "head", Role::Admin, &[]);
        let mut files = Vec::new();
        for id in &ids {
            let id = id.parse().unwrap();
            files.push((id, get_as(&s, &admin, id).await.unwrap().file, list_readers(&s, id).await));
        }
        let mut count_by_visibility = [0, 0];
        for (tenant, role) in [&school, &acme].iter().flat_map(|tenant| ROLES.map(|role| (*tenant, role))) {
            for (user, groups) in
                ["pupil", "friend", ""].iter().flat_map(|user| GROUPS.map(|groups| (*user, groups)))
            {
                let caller = caller_of(tenant, user, role, groups);
                let principals = caller.principals();
                for (id, file, readers) in &files {
                    let is_policy_reader = readers.iter().any(|reader| principals.contains(reader));
                    let found = VisibleFile { file: file.clone(), is_policy_reader, granted: None };
                    let allowed = can_see(&caller, &found);
                    let shown = get_as(&s, &caller, *id).await.is_some();
                    assert_eq!(shown, allowed, "{tenant} {user} {role:?} {groups:?} {file:?}");
                    count_by_visibility[usize::from(allowed)] += 1;
                }
            }
        }
        assert!(count_by_visibility.iter().all(|count| *count > 100), "{count_by_visibility:?}");
    });
}

async fn get_as(s: &Service, caller: &Caller, id: FileId) -> Option<files::VisibleFile> {
    let mut tx = s.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await.unwrap();
    let found = files::get(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
    found
}

async fn list_readers(s: &Service, id: FileId) -> Vec<String> {
    s.superuser.query_texts(&format!("SELECT principal FROM file_readers WHERE file_id = '{id}'")).await
}

#[test]
fn caller_names_cannot_inject_sql() {
    service_test(|s| async move {
        let id = file_id(
            &s.pupil().upload(UploadSpec { category: "report".into(), ..spec("a") }, b"x").await.unwrap(),
        );
        for user in [
            "', true), set_config('app.audience_min', '1', true); --",
            "pupil\\",
            "{pupil}",
            "pupil,x",
            "\u{0}",
        ] {
            for role in ["student", "teacher"] {
                let mut identity = s.pupil().identity;
                identity.user = user.to_owned();
                identity.role = Some(role.to_owned());
                identity.groups = vec!["a,b".into(), "'}; --".into(), "user:pupil".into()];
                assert_eq!(identity.organization.as_deref(), Some(SCHOOL));
                assert!(s.caller(identity).get(&id).await.is_err(), "{user:?}");
            }
        }
    });
}
