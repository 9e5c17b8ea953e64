//! Everything that a run needs: databases, callers, services over each store, and a directory for all of it.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::{
    Outcome,
    database::{APP_LOGIN, SYSTEM_LOGIN, TestDatabase},
    garage::Garage,
    identity::{AUDIENCE, ISSUER, IdentityProvider},
    process::Cpu,
    service::Service,
};

/// Where a service keeps its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// Nowhere.
    Costless,
    /// On this disk.
    Local,
    /// In the S3 server.
    Garage,
}

impl Store {
    /// Those that are there.
    pub(crate) fn all() -> Vec<Self> {
        let garage = Garage::lent().map(|_| Self::Garage);
        [Self::Costless, Self::Local].into_iter().chain(garage).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Costless => "costless store",
            Self::Local => "local provider",
            Self::Garage => "Garage",
        }
    }
}

/// One service with what is its own.
pub(crate) struct Place {
    pub(crate) service: Service,
    pub(crate) database: TestDatabase,
}

/// All of it.
pub(crate) struct Site {
    pub(crate) identity: IdentityProvider,
    pub(crate) garage: Option<Garage>,
    places: Vec<(Store, Place)>,
    directory: tempfile::TempDir,
    postmaster: Option<u32>,
    /// What whoever measures wants to be otherwise.
    set: Vec<(String, String)>,
}

impl Site {
    pub(crate) async fn start(set: Vec<(String, String)>) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let identity = IdentityProvider::new(&directory.path().join("jwks.json"));
        let garage = Garage::lent();
        let mut site = Self { identity, garage, places: Vec::new(), directory, postmaster: None, set };
        for store in Store::all() {
            let name = store.name().split(' ').next().unwrap_or_default().to_lowercase();
            let place = site.place(store, &name).await?;
            site.places.push((store, place));
        }
        let first = site.at(Store::Costless);
        site.postmaster = postmaster(&first.database.url("postgres")).await;
        Ok(site)
    }

    /// A service of its own, with an empty database.
    pub(crate) async fn place(&self, store: Store, name: &str) -> Outcome<Place> {
        let database = TestDatabase::migrated(&format!("load_{name}")).await;
        let settings = self.settings(store, name, &database);
        let set = self.set.iter().map(|(key, value)| (key.as_str(), value.clone()));
        let settings = settings.into_iter().chain(set);
        let service = Service::start(self.path(&format!("{name}.log")), settings).await?;
        Ok(Place { service, database })
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
        settings.extend(self.storage(store, name));
        settings
    }

    fn storage(&self, store: Store, name: &str) -> Vec<(&'static str, String)> {
        let text = str::to_owned;
        match (store, &self.garage) {
            (Store::Costless, _) => vec![
                ("storage.provider", text("nowhere")),
                ("storage.providers.nowhere.adapter", text("discard")),
            ],
            (Store::Local | Store::Garage, None) | (Store::Local, Some(_)) => {
                let root = self.path(&format!("{name}.objects")).display().to_string();
                vec![("storage.providers.local.root", root)]
            }
            (Store::Garage, Some(garage)) => vec![
                ("storage.provider", text("bucket")),
                ("storage.providers.bucket.adapter", text("s3")),
                ("storage.providers.bucket.endpoint", garage.endpoint.clone()),
                ("storage.providers.bucket.allow_http", text("true")),
                ("storage.providers.bucket.region", garage.region.clone()),
                ("storage.providers.bucket.bucket", garage.bucket.clone()),
                ("storage.providers.bucket.access_key_id", garage.access_key.clone()),
                ("storage.providers.bucket.secret_access_key", garage.secret_key.clone()),
                // As towards any store over TLS; the store compares a CRC64-NVME either way.
                ("storage.providers.bucket.payload_signing", text("never")),
                // What Garage does not know.
                ("storage.providers.bucket.encryption", text("none")),
                ("storage.providers.bucket.conditional_writes", text("false")),
            ],
        }
    }

    /// The process of the store, where it is one.
    pub(crate) fn store_pid(&self, store: Store) -> Option<u32> {
        if store == Store::Garage { self.garage.as_ref()?.pid } else { None }
    }

    pub(crate) fn at(&self, store: Store) -> &Place {
        let found = self.places.iter().find(|(at, _)| *at == store);
        found.map(|(_, place)| place).expect("every store has its place")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A member of an organisation.
    pub(crate) fn token(&self, organization: &str) -> SecretString {
        self.identity.token("loader", organization, "member")
    }

    /// What PostgreSQL has used so far, where its processes can be seen.
    pub(crate) fn postgres_cpu(&self) -> Cpu {
        self.postmaster.map(Cpu::of_family).unwrap_or_default()
    }

    pub(crate) async fn close(self) {
        for (_, Place { service, database }) in self.places {
            drop(service);
            database.drop().await;
        }
    }
}

/// The server's first process, from the file that it writes for `pg_ctl`.
async fn postmaster(url: &str) -> Option<u32> {
    let directory = crate::sql::value(url, "SHOW data_directory").await.ok()?;
    let file = std::fs::read_to_string(format!("{directory}/postmaster.pid")).ok()?;
    file.lines().next()?.trim().parse().ok()
}
