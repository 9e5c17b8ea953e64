//! Small files: several clients, each uploading its next file as soon as the previous one is durable.

use std::sync::Arc;

use crate::{
    Outcome,
    client::{self, Content, Files, Token, request_id},
    closed_loop::{CONNECTIONS_MAX, LoopClient, MeasuredProcesses, measure_clients},
    environment::Store,
    fixture::Fixture,
    meter::Sample,
    row::Tenants,
};

struct Uploader {
    files: Files,
    tokens: Arc<[Token]>,
    turn: usize,
    content: Content,
}

impl LoopClient for Uploader {
    async fn send_request(&mut self) -> Outcome<()> {
        let token = &self.tokens[self.turn % self.tokens.len()];
        client::upload(&mut self.files, token, &self.content, request_id()).await?;
        // Coprime to the number of tenants, so that each client uses all of them.
        self.turn += 13;
        Ok(())
    }
}

pub(crate) async fn measure_uploads(
    fixture: &Fixture,
    store: Store,
    clients: usize,
    tenants: Tenants,
) -> Outcome<Sample> {
    let mut connections = Vec::new();
    for _ in 0..clients.min(CONNECTIONS_MAX) {
        connections.push(fixture.connect(store).await?);
    }
    let tokens: Arc<[Token]> = fixture.tokens(tenants).into();
    let uploaders = (0..clients).map(|turn| Uploader {
        files: connections[turn % connections.len()].clone(),
        tokens: Arc::clone(&tokens),
        turn,
        content: fixture.small.clone(),
    });
    let processes = MeasuredProcesses {
        service_pid: fixture.environment.instance(store).service.pid(),
        store_pid: fixture.environment.store_pid(store),
    };
    measure_clients(&fixture.environment, processes, fixture.window, uploaders.collect()).await
}
