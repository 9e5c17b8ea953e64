//! One rule, twice: what row-level security shows is exactly what `access::can_see` allows.

use std::sync::Arc;

use strongroom::{
    app::access::can_see,
    db::{Viewer, files},
    domain::{
        caller::{Actor, ActorKind, Caller, Origin, Role, Tenant, TenantKind, TenantState},
        ids::FileId,
        policy::Policy,
        principal::{group_principal, user_principal},
    },
    proto::v1::{UploadSpec, Visibility},
};

use crate::harness::{SCHOOL, Service, file_id, service_test, spec};

const ROLES: [Role; 3] = [Role::Member, Role::Manager, Role::Admin];
const GROUPS: [&[&str]; 3] = [&[], &["8b", "7a"], &["8b"]];

/// A caller as the service would build it.
fn viewer(tenant: &str, user: &str, role: Role, groups: &[&str]) -> Caller {
    Caller {
        tenant: Arc::new(Tenant {
            id: tenant.parse().unwrap(),
            kind: TenantKind::Organization,
            state: TenantState::Active,
            policy: Policy::preset("education").unwrap(),
        }),
        actor: Actor { kind: ActorKind::User, id: user.to_owned() },
        role,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        origin: Origin::default(),
    }
}

/// Files of every visibility, each also granted to a user and to a group; answers their ids.
async fn some_files(s: &Service) -> Vec<String> {
    let mut ids = Vec::new();
    for visibility in [Visibility::Owner, Visibility::Managers, Visibility::Organization, Visibility::Public]
    {
        for principal in [None, Some(user_principal("friend")), Some(group_principal("7a"))] {
            let told = UploadSpec { visibility: visibility.into(), ..spec("a") };
            let id = file_id(&s.pupil().upload(told, b"x").await.unwrap());
            if let Some(principal) = principal {
                s.owner
                    .rows(
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
fn the_database_shows_exactly_what_the_guard_allows() {
    service_test(|s| async move {
        let ids = some_files(&s).await;
        let (school, acme) = (s.pupil().tenant_id().await, s.alice().tenant_id().await);
        let everything = viewer(&school, "head", Role::Admin, &[]);
        let mut files = Vec::new();
        for id in &ids {
            let id = id.parse().unwrap();
            files.push((id, look(&s, &everything, id).await.unwrap().file, readers(&s, id).await));
        }
        let mut seen_and_unseen = [0, 0];
        for (tenant, role) in [&school, &acme].iter().flat_map(|tenant| ROLES.map(|role| (*tenant, role))) {
            for (user, groups) in
                ["pupil", "friend", ""].iter().flat_map(|user| GROUPS.map(|groups| (*user, groups)))
            {
                let caller = viewer(tenant, user, role, groups);
                let principals = caller.principals();
                for (id, file, readers) in &files {
                    let is_granted = readers.iter().any(|reader| principals.contains(reader));
                    let allowed = can_see(&caller, file, is_granted);
                    let shown = look(&s, &caller, *id).await.is_some();
                    assert_eq!(shown, allowed, "{tenant} {user} {role:?} {groups:?} {file:?}");
                    seen_and_unseen[usize::from(allowed)] += 1;
                }
            }
        }
        assert!(seen_and_unseen.iter().all(|count| *count > 100), "{seen_and_unseen:?}");
    });
}

async fn look(s: &Service, caller: &Caller, id: FileId) -> Option<files::VisibleFile> {
    let mut tx = s.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await.unwrap();
    let found = files::get(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
    found
}

async fn readers(s: &Service, id: FileId) -> Vec<String> {
    s.owner.texts(&format!("SELECT principal FROM file_readers WHERE file_id = '{id}'")).await
}

#[test]
fn texts_of_callers_reach_the_database_as_texts() {
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
