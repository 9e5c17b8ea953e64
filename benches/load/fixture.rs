//! The state that all rows share: the environment, callers, contents, and files uploaded before the
//! measurements.

use std::{collections::HashMap, time::Duration};

use crate::{
    Outcome,
    client::{self, Content, Files, Token, request_id},
    environment::{Environment, Store},
    lists::Lists,
    options::Options,
    pgbench::Pgbench,
    program::Program,
    row::{Row, Tenants},
};

const TENANTS: usize = 64;
const SMALL_BYTES: u64 = 10 * 1024;

pub(crate) struct Fixture {
    pub(crate) environment: Environment,
    pub(crate) window: Duration,
    pub(crate) large: Content,
    pub(crate) concurrent: Content,
    pub(crate) small: Content,
    pub(crate) many: Vec<Token>,
    pub(crate) hot: Token,
    /// The id of the file to download, by store name.
    pub(crate) downloads: HashMap<&'static str, String>,
    pub(crate) pgbench: Option<Pgbench>,
    pub(crate) lists: Option<Lists>,
    numbers: u32,
}

impl Fixture {
    /// Starts everything that the rows need, and uploads a file for every tenant to every store, so that
    /// tenants and code paths are initialized before the measurements.
    pub(crate) async fn start(options: &Options, rows: &[Row], program: Program) -> Outcome<Self> {
        let stores: Vec<Store> = rows.iter().filter_map(|row| row.store()).collect();
        let environment = Environment::start(program, options.set.clone(), &stores).await?;
        let many = (0..TENANTS).map(|number| client::bearer(&environment.token(&format!("tenant-{number}"))));
        let (many, hot) = (many.collect::<Outcome<Vec<_>>>()?, client::bearer(&environment.token("hot"))?);
        let mut fixture = Self {
            window: options.window(),
            large: Content::new(options.large_file_size_bytes()),
            concurrent: Content::new(options.concurrent_file_size_bytes()),
            small: Content::new(SMALL_BYTES),
            many,
            hot,
            downloads: HashMap::new(),
            pgbench: None,
            lists: None,
            numbers: 0,
            environment,
        };
        for store in fixture.environment.stores() {
            let mut files = fixture.connect(store).await?;
            for token in fixture.many.iter().chain([&fixture.hot]) {
                client::upload(&mut files, token, &fixture.small, request_id()).await?;
            }
            if rows.contains(&Row::Download(store)) {
                let id = client::upload(&mut files, &fixture.hot, &fixture.large, request_id()).await?;
                fixture.downloads.insert(store.name(), id);
            }
        }
        if rows.iter().any(|row| matches!(row, Row::Pgbench { .. })) {
            let pgbench = Pgbench::prepare(&fixture.environment, TENANTS, &fixture.small).await?;
            fixture.pgbench = Some(pgbench);
        }
        if rows.iter().any(|row| matches!(row, Row::List(_))) {
            fixture.lists = Some(Lists::prepare(&fixture.environment, options, &fixture.small).await?);
        }
        Ok(fixture)
    }

    pub(crate) async fn connect(&self, store: Store) -> Outcome<Files> {
        client::connect(&self.environment.instance(store).service.grpc).await
    }

    pub(crate) fn tokens(&self, tenants: Tenants) -> Vec<Token> {
        match tenants {
            Tenants::Many => self.many.clone(),
            Tenants::One => vec![self.hot.clone()],
        }
    }

    /// Returns a new number for use in names.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) async fn close(self) {
        if let Some(pgbench) = self.pgbench {
            pgbench.close().await;
        }
        if let Some(lists) = self.lists {
            lists.close().await;
        }
        self.environment.close().await;
    }
}
