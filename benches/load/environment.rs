//! The environment of a run: databases, an identity provider, a service for each store, and a working
//! directory.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::{
    Outcome,
    database::{APP_LOGIN, SYSTEM_LOGIN, TestDatabase},
    garage::Garage,
    identity::{AUDIENCE, ISSUER, IdentityProvider},
    process::Cpu,
    program::Program,
    service::Service,
};

/// The store of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// Discards the data.
    Discard,
    /// The local disk.
    Local,
    /// The S3 server.
    Garage,
}

impl Store {
    /// Returns the available stores.
    pub(crate) fn all() -> Vec<Self> {
        let garage = Garage::from_env().map(|_| Self::Garage);
        [Self::Discard, Self::Local].into_iter().chain(garage).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Discard => "discard store",
            Self::Local => "local provider",
            Self::Garage => "Garage",
        }
    }
}

/// A service with its own database.
pub(crate) struct Instance {
    pub(crate) service: Service,
    pub(crate) database: TestDatabase,
}

/// The environment of a run.
pub(crate) struct Environment {
    pub(crate) program: Program,
    pub(crate) identity: IdentityProvider,
    pub(crate) garage: Option<Garage>,
    instances: Vec<(Store, Instance)>,
    directory: tempfile::TempDir,
    postmaster: Option<u32>,
    /// Configuration keys that the user overrides.
    set: Vec<(String, String)>,
}

impl Environment {
    /// Starts a service for the discard store and for each of the given stores.
    pub(crate) async fn start(
        program: Program,
        set: Vec<(String, String)>,
        stores: &[Store],
    ) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let identity = IdentityProvider::new(&directory.path().join("jwks.json"));
        let garage = Garage::from_env();
        let mut environment =
            Self { program, identity, garage, instances: Vec::new(), directory, postmaster: None, set };
        for store in Store::all().into_iter().filter(|at| *at == Store::Discard || stores.contains(at)) {
            let name = store.name().split(' ').next().unwrap_or_default().to_lowercase();
            let instance = environment.start_instance(store, &name).await?;
            environment.instances.push((store, instance));
        }
        let first = environment.instance(Store::Discard);
        environment.postmaster = find_postmaster(&first.database.superuser_url()).await;
        Ok(environment)
    }

    /// Starts a service with an empty database.
    pub(crate) async fn start_instance(&self, store: Store, name: &str) -> Outcome<Instance> {
        let database = self.program.create_database(name).await?;
        let settings = self.settings(store, name, &database);
        let set = self.set.iter().map(|(key, value)| (key.as_str(), value.clone()));
        let settings = settings.into_iter().chain(set);
        let service = Service::start(&self.program, self.path(&format!("{name}.log")), settings).await?;
        Ok(Instance { service, database })
    }

    fn settings(&self, store: Store, name: &str, database: &TestDatabase) -> Vec<(&'static str, String)> {
        let jwks = self.path("jwks.json");
        let issuers = format!(
            "[{{ issuer = \"{ISSUER}\", audience = \"{AUDIENCE}\", jwks_file = \"{}\" }}]",
            jwks.display()
        );
        let mut settings = vec![
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("edge.listen", "127.0.0.1:0".to_owned()),
            ("database.url", database.url(APP_LOGIN)),
            ("database.system_url", database.url(SYSTEM_LOGIN)),
            ("auth.issuers", issuers),
            ("secrets.page_token_key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
            ("telemetry.log_format", "json".to_owned()),
        ];
        settings.extend(self.storage(store, name, database));
        settings
    }

    fn storage(&self, store: Store, name: &str, database: &TestDatabase) -> Vec<(&'static str, String)> {
        let text = str::to_owned;
        match (store, &self.garage) {
            (Store::Discard, _) => vec![
                ("storage.provider", text("discard")),
                ("storage.providers.discard.adapter", text("discard")),
            ],
            (Store::Local | Store::Garage, None) | (Store::Local, Some(_)) => {
                let root = self.path(&format!("{name}.objects")).display().to_string();
                vec![("storage.providers.local.root", root)]
            }
            (Store::Garage, Some(garage)) => vec![
                ("storage.provider", text("bucket")),
                // A place in a store belongs to one database.
                ("storage.key_prefix", database.name.clone()),
                ("storage.providers.bucket.adapter", text("s3")),
                ("storage.providers.bucket.endpoint", garage.endpoint.clone()),
                ("storage.providers.bucket.allow_http", text("true")),
                ("storage.providers.bucket.region", garage.region.clone()),
                ("storage.providers.bucket.bucket", garage.bucket.clone()),
                ("storage.providers.bucket.access_key_id", garage.access_key.clone()),
                ("storage.providers.bucket.secret_access_key", garage.secret_key.clone()),
                // Like any store over TLS. The store verifies a CRC-64/NVME in both cases.
                ("storage.providers.bucket.payload_signing", text("never")),
                // Garage does not support these.
                ("storage.providers.bucket.encryption", text("none")),
                ("storage.providers.bucket.conditional_writes", text("false")),
            ],
        }
    }

    /// Returns the process id of the store, if it is a separate process.
    pub(crate) fn store_pid(&self, store: Store) -> Option<u32> {
        if store == Store::Garage { self.garage.as_ref()?.pid } else { None }
    }

    /// Returns the stores whose services run.
    pub(crate) fn stores(&self) -> Vec<Store> {
        self.instances.iter().map(|(store, _)| *store).collect()
    }

    pub(crate) fn instance(&self, store: Store) -> &Instance {
        let found = self.instances.iter().find(|(at, _)| *at == store);
        found.map(|(_, instance)| instance).expect("the store has no instance")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates a token for a member of an organization.
    pub(crate) fn token(&self, organization: &str) -> SecretString {
        self.identity.token("loader", organization, "member")
    }

    /// Creates a token for an admin of an organization.
    pub(crate) fn admin_token(&self, organization: &str) -> SecretString {
        self.identity.token("admin", organization, "admin")
    }

    /// Returns the CPU time of PostgreSQL so far, if its processes are visible.
    pub(crate) fn postgres_cpu(&self) -> Cpu {
        self.postmaster.map(Cpu::measure_with_children).unwrap_or_default()
    }

    pub(crate) async fn close(self) {
        for (_, instance) in self.instances {
            instance.close().await;
        }
    }
}

impl Instance {
    /// Stops the service and removes its database.
    pub(crate) async fn close(self) {
        drop(self.service);
        self.database.drop_database().await;
    }
}

/// Returns the process id of the postmaster, from the file that it writes for `pg_ctl`.
async fn find_postmaster(url: &str) -> Option<u32> {
    let directory = crate::sql::query_value(url, "SHOW data_directory").await.ok()?;
    let file = std::fs::read_to_string(format!("{directory}/postmaster.pid")).ok()?;
    file.lines().next()?.trim().parse().ok()
}
