//! What the rows share: the site, callers, contents, and what was uploaded before anything is measured.

use std::{collections::HashMap, time::Duration};

use strongroom::domain::clock::{IdSource as _, SystemIds};

use crate::{
    Outcome,
    options::Options,
    pgbench::Pgbench,
    row::{Row, Tenants},
    site::{Site, Store},
    wire::{self, Content, Files, Token},
};

const TENANTS: usize = 64;
const SMALL_BYTES: u64 = 10 * 1024;

pub(crate) struct Lab {
    pub(crate) site: Site,
    pub(crate) window: Duration,
    pub(crate) large: Content,
    pub(crate) crowd: Content,
    pub(crate) small: Content,
    pub(crate) many: Vec<Token>,
    pub(crate) hot: Token,
    /// The file that is downloaded from each store.
    pub(crate) downloads: HashMap<&'static str, String>,
    pub(crate) pgbench: Option<Pgbench>,
    numbers: u32,
}

impl Lab {
    /// Starts everything, and lets every tenant and every path be born before something is measured.
    pub(crate) async fn start(options: &Options, rows: &[Row]) -> Outcome<Self> {
        let site = Site::start(options.set.clone()).await?;
        let many = (0..TENANTS).map(|number| wire::bearer(&site.token(&format!("tenant-{number}"))));
        let (many, hot) = (many.collect::<Outcome<Vec<_>>>()?, wire::bearer(&site.token("hot"))?);
        let mut lab = Self {
            window: options.window(),
            large: Content::new(options.large_bytes()),
            crowd: Content::new(options.crowd_bytes()),
            small: Content::new(SMALL_BYTES),
            many,
            hot,
            downloads: HashMap::new(),
            pgbench: None,
            numbers: 0,
            site,
        };
        for store in Store::all() {
            let mut files = lab.connect(store).await?;
            for token in lab.many.iter().chain([&lab.hot]) {
                wire::upload(&mut files, token, &lab.small, request_id()).await?;
            }
            if rows.contains(&Row::Download(store)) {
                let id = wire::upload(&mut files, &lab.hot, &lab.large, request_id()).await?;
                lab.downloads.insert(store.name(), id);
            }
        }
        if rows.iter().any(|row| matches!(row, Row::Pgbench { .. })) {
            lab.pgbench = Some(Pgbench::prepare(&lab.site, TENANTS).await?);
        }
        Ok(lab)
    }

    pub(crate) async fn connect(&self, store: Store) -> Outcome<Files> {
        wire::connect(&self.site.at(store).service.grpc).await
    }

    pub(crate) fn tokens(&self, tenants: Tenants) -> Vec<Token> {
        match tenants {
            Tenants::Many => self.many.clone(),
            Tenants::One => vec![self.hot.clone()],
        }
    }

    /// Another one each time, for names.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) async fn close(self) {
        if let Some(pgbench) = self.pgbench {
            pgbench.close().await;
        }
        self.site.close().await;
    }
}

/// Every upload has one: what makes a retry safe is part of what is measured.
pub(crate) fn request_id() -> String {
    SystemIds.uuid().to_string()
}
