//! The access matrix: preset × category × relation × role × operation. The expectation is written down here, from the
//! rules of the business and not from the code, and is compared with the rule of the application, with row-level
//! security, and with `CheckAccess`.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt as _, stream};
use strongroom::{
    app::access::{Operation, check_access},
    config::Config,
    db::{Viewer, files},
    domain::{
        caller::{Actor, ActorKind, Caller as DomainCaller, Origin, Role, Tenant, TenantKind, TenantState},
        ids::FileId,
        permission::Permission,
        policy::Policy,
        rate_limits::RequestLimits,
    },
    proto::v1::{
        AccessOperation, AccessRole, AccessSubject, CheckAccessRequest, CheckAccessResponse, EntityRef,
        FilePermission, UploadSpec,
    },
};

use crate::{
    grants::{To, give},
    harness::{Caller, Service, file_id, service_test_with, spec},
};

/// Who sees the files of a category by its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    Owner,
    Managers,
    /// Managers, and the classes that the file is attached to.
    ManagersAndClass,
    Everyone,
}

use Audience::{Everyone, Managers, ManagersAndClass, Owner};

/// A preset of POLICY: the audience of each category, and whether all members change the files that they see.
struct Preset {
    name: &'static str,
    categories: &'static [(&'static str, Audience)],
    members_change: bool,
}

const EDUCATION: Preset = Preset {
    name: "education",
    categories: &[
        ("educational_content", ManagersAndClass),
        ("student_submission", Managers),
        ("assessment", Managers),
        ("administrative", Owner),
        ("report", Owner),
        ("temporary", Owner),
        ("avatar", Everyone),
        ("media_resource", Everyone),
    ],
    members_change: false,
};

const GENERAL: Preset =
    Preset { name: "general", categories: &ORGANIZATION_CATEGORIES, members_change: false };

const WORKSPACE: Preset =
    Preset { name: "workspace", categories: &ORGANIZATION_CATEGORIES, members_change: true };

const ORGANIZATION_CATEGORIES: [(&str, Audience); 9] = [
    ("educational_content", Everyone),
    ("student_submission", Everyone),
    ("assessment", Everyone),
    ("administrative", Everyone),
    ("report", Everyone),
    ("temporary", Everyone),
    ("avatar", Everyone),
    ("media_resource", Everyone),
    ("public", Everyone),
];

const CRM: Preset = Preset {
    name: "crm",
    categories: &[
        ("educational_content", Owner),
        ("student_submission", Owner),
        ("assessment", Owner),
        ("administrative", Owner),
        ("report", Owner),
        ("temporary", Owner),
        ("avatar", Owner),
        ("media_resource", Owner),
    ],
    members_change: false,
};

const IMAGES: Preset = Preset {
    name: "images",
    categories: &[("course-thumbnails", Owner), ("profile-pictures", Owner), ("public-pages", Everyone)],
    members_change: false,
};

/// What connects a caller to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Owns,
    /// It is in the class that the file is attached to.
    SameGroup,
    Granted(Permission),
    /// It is in a group for which a share created a grant.
    SharedWithGroup(Permission),
    /// A grant of it has expired.
    GrantExpired,
    Stranger,
    OtherTenant,
}

use Relation::{GrantExpired, Granted, OtherTenant, Owns, SameGroup, SharedWithGroup, Stranger};

const RELATIONS: [Relation; 10] = [
    Owns,
    SameGroup,
    Granted(Permission::View),
    Granted(Permission::Download),
    Granted(Permission::Delete),
    SharedWithGroup(Permission::View),
    SharedWithGroup(Permission::Delete),
    GrantExpired,
    Stranger,
    OtherTenant,
];

impl Relation {
    fn user(self) -> &'static str {
        match self {
            Owns => "olga",
            Granted(Permission::View) => "viewer",
            Granted(Permission::Download) => "downloader",
            Granted(Permission::Delete) => "deleter",
            GrantExpired => "former",
            SameGroup | SharedWithGroup(_) | Stranger | OtherTenant => "stranger",
        }
    }

    fn groups(self) -> &'static [&'static str] {
        match self {
            SameGroup => &["other", "7a"],
            SharedWithGroup(Permission::View) => &["viewers"],
            SharedWithGroup(_) => &["deleters"],
            _ => &["other"],
        }
    }
}

const ROLES: [Role; 3] = [Role::Member, Role::Manager, Role::Admin];

/// The operations, with their names in the API.
const OPERATIONS: [(Operation, AccessOperation, FilePermission); 10] = [
    (Operation::View, AccessOperation::View, FilePermission::Unspecified),
    (Operation::ReadInline, AccessOperation::ReadInline, FilePermission::Unspecified),
    (Operation::Download, AccessOperation::Download, FilePermission::Unspecified),
    (Operation::Copy, AccessOperation::Copy, FilePermission::Unspecified),
    (Operation::Delete, AccessOperation::Delete, FilePermission::Unspecified),
    (Operation::Change, AccessOperation::Change, FilePermission::Unspecified),
    (Operation::Grant(Permission::View), AccessOperation::Grant, FilePermission::View),
    (Operation::Grant(Permission::Download), AccessOperation::Grant, FilePermission::Download),
    (Operation::Grant(Permission::Delete), AccessOperation::Grant, FilePermission::Delete),
    (Operation::Administer, AccessOperation::Administer, FilePermission::Unspecified),
];

/// The operations that a permission of a grant allows, in the order of `OPERATIONS`: `y` and `n`.
fn by_grant(permission: Permission) -> &'static str {
    match permission {
        Permission::View => "yynnnnynnn",
        Permission::Download => "yyynnnyynn",
        Permission::Delete => "yyynynyyyn",
    }
}

/// The operations that are expected to be allowed. All `n` if the file is hidden.
fn expected(preset: &Preset, audience: Audience, relation: Relation, role: Role) -> Vec<bool> {
    let mut rows: Vec<&str> = Vec::new();
    if relation != OtherTenant {
        if role == Role::Admin {
            rows.push("yyyyyyyyyy");
        }
        if relation == Owns {
            rows.push("yyyyyyyyyn");
        }
        let sees = match audience {
            Owner => false,
            Managers => role == Role::Manager,
            ManagersAndClass => role == Role::Manager || relation == SameGroup,
            Everyone => true,
        };
        if sees {
            rows.push(if preset.members_change { "yyyyyynnnn" } else { "yyyynnnnnn" });
        }
        if let Granted(permission) | SharedWithGroup(permission) = relation {
            rows.push(by_grant(permission));
        }
    }
    (0..OPERATIONS.len()).map(|index| rows.iter().any(|row| row.as_bytes()[index] == b'y')).collect()
}

/// One category of a preset, with its file.
struct Subject {
    audience: Audience,
    category: &'static str,
    file: String,
}

async fn upload_files(s: &Service, preset: &Preset) -> Vec<Subject> {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
    let olga = s.member("olga", "firm", "member", &[]);
    let mut subjects = Vec::new();
    for (category, audience) in preset.categories {
        let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
        let spec = UploadSpec {
            category: (*category).to_owned(),
            mime_type: "image/png".to_owned(),
            attachments: vec![class],
            ..spec("a.png")
        };
        let file = file_id(&olga.upload(spec, PNG).await.unwrap());
        for (user, permission) in [
            ("viewer", FilePermission::View),
            ("downloader", FilePermission::Download),
            ("deleter", FilePermission::Delete),
            ("former", FilePermission::Delete),
        ] {
            give(&olga, &file, To::User(user), permission).await.unwrap();
        }
        give(&olga, &file, To::Group("viewers"), FilePermission::View).await.unwrap();
        give(&olga, &file, To::Group("deleters"), FilePermission::Delete).await.unwrap();
        subjects.push(Subject { audience: *audience, category, file });
    }
    // As if a share had created the grants of groups, and as if time had passed for one user.
    s.superuser
        .execute(
            "UPDATE file_grants SET share_id = gen_random_uuid() WHERE principal LIKE 'group:%';
             UPDATE file_grants SET expire_time = '2000-01-01' WHERE principal = 'user:former';
             UPDATE file_readers SET view_end_time = '2000-01-01', download_end_time = '2000-01-01',
                delete_end_time = '2000-01-01' WHERE principal = 'user:former'",
        )
        .await;
    subjects
}

fn domain_caller(tenant: &Arc<Tenant>, relation: Relation, role: Role) -> DomainCaller {
    DomainCaller {
        tenant: Arc::clone(tenant),
        actor: Actor { kind: ActorKind::User, id: relation.user().to_owned() },
        role,
        groups: relation.groups().iter().map(|group| (*group).to_owned()).collect(),
        scopes: Vec::new(),
        origin: Origin::default(),
        first_call: None,
    }
}

fn tenant(id: &str, preset: &Preset) -> Arc<Tenant> {
    Arc::new(Tenant {
        id: id.parse().unwrap(),
        kind: TenantKind::Organization,
        state: TenantState::Active,
        is_read_only: false,
        rate_limits: RequestLimits::default(),
        policy: Policy::preset(preset.name).unwrap(),
    })
}

async fn ask(
    admin: &Caller,
    file: &str,
    relation: Relation,
    role: Role,
    index: usize,
) -> CheckAccessResponse {
    let (_, operation, permission) = OPERATIONS[index];
    let role = match role {
        Role::Member => AccessRole::Member,
        Role::Manager => AccessRole::Manager,
        Role::Admin => AccessRole::Admin,
    };
    let subject = AccessSubject {
        user_id: relation.user().to_owned(),
        role: role.into(),
        group_ids: relation.groups().iter().map(|group| (*group).to_owned()).collect(),
    };
    let request = CheckAccessRequest {
        file_id: file.to_owned(),
        operation: operation.into(),
        permission: permission.into(),
        subject: Some(subject),
    };
    admin.shares.clone().check_access(request).await.unwrap().into_inner()
}

/// Compares all cells of a preset.
fn check_matrix(preset: &'static Preset) {
    let configure = move |config: &mut Config| {
        config.tenants.presets.insert("firm".to_owned(), preset.name.to_owned());
    };
    service_test_with(configure, move |s| async move {
        let subjects = upload_files(&s, preset).await;
        let ids: Vec<FileId> = subjects.iter().map(|subject| subject.file.parse().unwrap()).collect();
        let admin = s.member("anna", "firm", "admin", &[]);
        let own = tenant(&admin.tenant_id().await, preset);
        let other = tenant(&s.gus().tenant_id().await, preset);
        let (mut cells, mut questions) = ([0, 0], Vec::new());
        for (relation, role) in RELATIONS.iter().flat_map(|relation| ROLES.map(|role| (*relation, role))) {
            let caller = domain_caller(if relation == OtherTenant { &other } else { &own }, relation, role);
            // All files at once: row-level security decides which rows there are.
            let mut tx = s.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(&caller)).await.unwrap();
            let found = files::get_all(&mut tx, &ids).await.unwrap();
            tx.commit().await.unwrap();
            let shown: HashMap<FileId, _> = found.into_iter().map(|found| (found.file.id, found)).collect();
            for (subject, id) in subjects.iter().zip(&ids) {
                let Subject { audience, category, file } = subject;
                let expected = expected(preset, *audience, relation, role);
                let cell = format!("{} {category} {relation:?} {role:?}", preset.name);
                assert_eq!(shown.contains_key(id), expected[0], "row-level security: {cell}");
                for (index, (operation, ..)) in OPERATIONS.iter().enumerate() {
                    let found = shown.get(id);
                    let allowed = found.is_some_and(|found| check_access(&caller, found, *operation).is_ok());
                    assert_eq!(allowed, expected[index], "rule: {cell} {operation:?}");
                    cells[usize::from(allowed)] += 1;
                    if relation != OtherTenant && (index + file.len() + questions.len()) % 4 == 0 {
                        questions.push((
                            file.as_str(),
                            relation,
                            role,
                            index,
                            expected.clone(),
                            cell.clone(),
                        ));
                    }
                }
            }
        }
        assert!(cells.iter().all(|count| *count > 100), "{cells:?}");
        let admin = &admin;
        stream::iter(questions)
            .for_each_concurrent(8, |(file, relation, role, index, expected, cell)| async move {
                let report = ask(admin, file, relation, role, index).await;
                let got = (report.allowed, report.visible);
                assert_eq!(got, (expected[index], expected[0]), "CheckAccess: {cell} {index}");
                assert_eq!(report.allowed, report.rule != 0 && report.denial.is_empty(), "{cell}");
            })
            .await;
    });
}

#[test]
fn access_matrix_of_general_holds() {
    check_matrix(&GENERAL);
}

#[test]
fn access_matrix_of_workspace_holds() {
    check_matrix(&WORKSPACE);
}

#[test]
fn access_matrix_of_crm_holds() {
    check_matrix(&CRM);
}

#[test]
fn access_matrix_of_education_holds() {
    check_matrix(&EDUCATION);
}

#[test]
fn access_matrix_of_images_holds() {
    check_matrix(&IMAGES);
}

#[test]
fn only_admins_and_services_ask_about_others() {
    let configure = |config: &mut Config| {
        config.tenants.presets.insert("firm".to_owned(), "crm".to_owned());
    };
    service_test_with(configure, |s| async move {
        const PDF: &[u8] = b"%PDF-1.7\n";
        let spec = UploadSpec { mime_type: "application/pdf".to_owned(), ..spec("a.pdf") };
        let file = file_id(&s.member("olga", "firm", "member", &[]).upload(spec, PDF).await.unwrap());
        let colin = s.member("colin", "firm", "manager", &[]);
        let about = |subject: Option<&str>| CheckAccessRequest {
            file_id: file.clone(),
            operation: AccessOperation::Download.into(),
            subject: subject.map(|user| AccessSubject { user_id: user.to_owned(), ..Default::default() }),
            ..CheckAccessRequest::default()
        };
        let hidden = colin.shares.clone().check_access(about(None)).await.unwrap_err();
        assert_eq!(hidden.code(), tonic::Code::NotFound, "a hidden file");
        let refused = colin.shares.clone().check_access(about(Some("olga"))).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        let olga = s.member("olga", "firm", "member", &[]);
        let own = olga.shares.clone().check_access(about(None)).await.unwrap().into_inner();
        assert!(own.allowed && own.visible);
        let mut identity = s.billing().identity;
        identity.organization = Some("firm".to_owned());
        let service = s.caller(identity);
        let report = service.shares.clone().check_access(about(Some("olga"))).await.unwrap().into_inner();
        assert!(report.allowed);
        let report = service.shares.clone().check_access(about(Some("colin"))).await.unwrap().into_inner();
        assert!(!report.allowed && !report.visible);
        let mut random = about(Some("olga"));
        random.file_id = "0193a7a0-0000-7000-8000-000000000000".to_owned();
        let unknown = service.shares.clone().check_access(random).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    });
}
