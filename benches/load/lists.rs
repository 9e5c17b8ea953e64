//! Lists: pages of the files of a tenant that has many.

use std::collections::HashMap;

use strongroom::db::migrate::replace_state_names;

use crate::{
    Outcome,
    client::{self, Content, Files, Token, request_id},
    closed_loop::{CONNECTIONS_MAX, LoopClient, MeasuredProcesses, measure_clients},
    environment::{Environment, Instance, Store},
    meter::Sample,
    options::Options,
    sql,
};

/// The number of files of a page.
pub(crate) const PAGE_SIZE: usize = 100;
/// The maximum number of files of a page, used to reach the middle of a list.
const PAGE_SIZE_MAX: usize = 1_000;
const ORGANIZATION: &str = "lists";

/// The order of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    Newest,
    Name,
}

impl Order {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest first",
            Self::Name => "by name",
        }
    }

    fn order_by(self) -> &'static str {
        match self {
            Self::Newest => "create_time desc",
            Self::Name => "name",
        }
    }
}

/// The caller. An admin sees all files, a member those of the organization and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Viewer {
    Member,
    Admin,
}

impl Viewer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Member => "a member",
            Self::Admin => "an admin",
        }
    }
}

/// The position of the page in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    First,
    /// After half of the files.
    Middle,
}

impl Depth {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first page",
            Self::Middle => "middle page",
        }
    }
}

/// The page that a row requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRow {
    pub(crate) order: Order,
    pub(crate) viewer: Viewer,
    pub(crate) depth: Depth,
    pub(crate) clients: usize,
}

/// A service with a tenant that has many files.
pub(crate) struct Lists {
    instance: Instance,
    member: Token,
    admin: Token,
    /// The tokens of the pages in the middle.
    middle: HashMap<(Order, Viewer), String>,
}

impl Lists {
    /// Starts a service, and creates the files as copies of the row of an uploaded file.
    pub(crate) async fn prepare(
        environment: &Environment,
        options: &Options,
        content: &Content,
    ) -> Outcome<Self> {
        let instance = environment.start_instance(Store::Discard, "lists").await?;
        let member = client::bearer(&environment.token(ORGANIZATION))?;
        let admin = client::bearer(&environment.admin_token(ORGANIZATION))?;
        let mut files = client::connect(&instance.service.grpc).await?;
        let file_id = client::upload(&mut files, &member, content, request_id()).await?;
        let count = options.listed_file_count();
        let url = instance.database.superuser_url();
        sql::execute(&url, &replace_state_names(&copy_file_sql(&file_id, count))?).await?;
        // Otherwise autovacuum and a checkpoint would start during a measurement.
        sql::execute(&url, "VACUUM ANALYZE files").await?;
        sql::execute(&url, "CHECKPOINT").await?;
        let mut lists = Self { instance, member, admin, middle: HashMap::new() };
        for order in [Order::Newest, Order::Name] {
            for viewer in [Viewer::Member, Viewer::Admin] {
                let token = lists.find_middle(&mut files, order, viewer, count as usize).await?;
                lists.middle.insert((order, viewer), token);
            }
        }
        Ok(lists)
    }

    fn token(&self, viewer: Viewer) -> &Token {
        match viewer {
            Viewer::Member => &self.member,
            Viewer::Admin => &self.admin,
        }
    }

    /// Returns the token of the page after half of the files.
    async fn find_middle(
        &self,
        files: &mut Files,
        order: Order,
        viewer: Viewer,
        count: usize,
    ) -> Outcome<String> {
        let (mut token, mut seen) = (String::new(), 0);
        while seen < count / 2 {
            let size = PAGE_SIZE_MAX.min(count / 2 - seen);
            let page =
                client::list(files, self.token(viewer), order.order_by(), size, token.as_str()).await?;
            seen += page.files.len();
            token = page.next_page_token;
            if token.is_empty() {
                return Err(format!("the list of {} ends after {seen} files", viewer.name()).into());
            }
        }
        Ok(token)
    }

    /// Requests the page repeatedly.
    pub(crate) async fn measure(
        &self,
        environment: &Environment,
        row: PageRow,
        options: &Options,
    ) -> Outcome<Sample> {
        let mut connections = Vec::new();
        for _ in 0..row.clients.min(CONNECTIONS_MAX) {
            connections.push(client::connect(&self.instance.service.grpc).await?);
        }
        let page_token = match row.depth {
            Depth::First => String::new(),
            Depth::Middle => self.middle.get(&(row.order, row.viewer)).ok_or("no such page")?.clone(),
        };
        let listers = (0..row.clients).map(|number| Lister {
            files: connections[number % connections.len()].clone(),
            token: self.token(row.viewer).clone(),
            order: row.order,
            page_token: page_token.clone(),
        });
        let processes = MeasuredProcesses { service_pid: self.instance.service.pid(), store_pid: None };
        measure_clients(environment, processes, options.window(), listers.collect()).await
    }

    pub(crate) async fn close(self) {
        self.instance.close().await;
    }
}

struct Lister {
    files: Files,
    token: Token,
    order: Order,
    page_token: String,
}

impl LoopClient for Lister {
    async fn send_request(&mut self) -> Outcome<()> {
        let order_by = self.order.order_by();
        let page = client::list(&mut self.files, &self.token, order_by, PAGE_SIZE, &self.page_token).await?;
        match page.files.len() {
            PAGE_SIZE => Ok(()),
            count => Err(format!("a page has {count} files; expected {PAGE_SIZE}").into()),
        }
    }
}

/// Returns the SQL that copies the row of a file. Of 50 copies, one is visible to managers and one only to its
/// owner and admins. The columns are those of the catalog, so that any version of the schema is accepted.
fn copy_file_sql(file_id: &str, count: u32) -> String {
    format!(
        "DO $$
DECLARE
    columns text;
    expressions text;
BEGIN
    SELECT string_agg(format('%I', attname), ', ' ORDER BY attnum),
        string_agg(CASE attname
            WHEN 'id' THEN 'gen_random_uuid()'
            WHEN 'name' THEN 'md5(n::text)'
            WHEN 'owner_id' THEN '''owner'' || n % 50'
            WHEN 'visibility' THEN 'CASE n % 50 WHEN 1 THEN {{visibility.owner}}
                WHEN 2 THEN {{visibility.managers}} ELSE {{visibility.organization}} END'
            WHEN 'size_bytes' THEN '(n * 7919) % 100003'
            WHEN 'create_time' THEN 'file.create_time - n * interval ''1 second'''
            ELSE format('file.%I', attname)
        END, ', ' ORDER BY attnum)
    INTO columns, expressions
    FROM pg_attribute
    WHERE attrelid = 'public.files'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    EXECUTE format(
        'INSERT INTO public.files (%s) SELECT %s FROM public.files AS file, generate_series(1, {count}) AS n WHERE file.id = %L',
        columns, expressions, '{file_id}');
END
$$"
    )
}
