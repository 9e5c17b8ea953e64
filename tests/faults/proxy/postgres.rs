//! Forwards the PostgreSQL protocol. Each message after the first has a type byte and a length.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{Fault, Rules, wait_for_permit};

/// The last message of a response: ReadyForQuery, outside of any transaction.
const READY_FOR_QUERY: &[u8] = b"Z\0\0\0\x05I";

pub(super) async fn forward(
    client: TcpStream,
    server_reader: impl AsyncRead + Unpin,
    server_writer: impl AsyncWrite + Unpin,
    rules: &Rules,
) -> io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let drops_response = AtomicBool::new(false);
    // When one side closes the connection, close the other.
    tokio::select! {
        result = forward_requests(from_client, server_writer, rules, &drops_response) => result,
        result = forward_responses(server_reader, to_client, &drops_response) => result,
    }
}

async fn forward_requests(
    mut from_client: OwnedReadHalf,
    mut server: impl AsyncWrite + Unpin,
    rules: &Rules,
    drops_response: &AtomicBool,
) -> io::Result<()> {
    // The startup message has no type byte.
    let length = from_client.read_u32().await?;
    let startup = read_body(&mut from_client, length).await?;
    server.write_all(&[&length.to_be_bytes(), startup.as_slice()].concat()).await?;
    loop {
        let message_type = from_client.read_u8().await?;
        let length = from_client.read_u32().await?;
        let body = read_body(&mut from_client, length).await?;
        let message = [&[message_type], length.to_be_bytes().as_slice(), &body].concat();
        let text = String::from_utf8_lossy(&body);
        match rules.find_fault(&format!("{} {}", char::from(message_type), text.trim_end_matches('\0'))) {
            None => {}
            Some(Fault::CutRequest { after_bytes }) => {
                return server.write_all(&message[..after_bytes.min(message.len())]).await;
            }
            Some(Fault::DropResponse) => drops_response.store(true, Ordering::SeqCst),
            Some(Fault::Hold(gate)) => wait_for_permit(&gate).await,
            Some(other) => panic!("{other:?} does not apply to PostgreSQL"),
        }
        server.write_all(&message).await?;
    }
}

async fn read_body(from: &mut OwnedReadHalf, length: u32) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn forward_responses(
    mut server: impl AsyncRead + Unpin,
    mut to_client: OwnedWriteHalf,
    drops_response: &AtomicBool,
) -> io::Result<()> {
    let (mut buffer, mut dropped) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let count = server.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if drops_response.load(Ordering::SeqCst) {
            // The server has executed the statement only when the response is complete.
            dropped.extend_from_slice(&buffer[..count]);
            if dropped.ends_with(READY_FOR_QUERY) {
                return Ok(());
            }
        } else {
            to_client.write_all(&buffer[..count]).await?;
        }
    }
}
