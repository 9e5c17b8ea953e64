//! PostgreSQL's messages: after the first, each has a letter and a length.

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

use super::{Fault, Rules, held};

/// What the server says last when it has answered: that it is ready, outside any transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

pub(super) async fn converse(
    client: TcpStream,
    server_reader: impl AsyncRead + Unpin,
    server_writer: impl AsyncWrite + Unpin,
    rules: &Rules,
) -> io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let loses_answer = AtomicBool::new(false);
    // Whichever side ends first, ends both.
    tokio::select! {
        ended = questions(from_client, server_writer, rules, &loses_answer) => ended,
        ended = answers(server_reader, to_client, &loses_answer) => ended,
    }
}

async fn questions(
    mut from_client: OwnedReadHalf,
    mut server: impl AsyncWrite + Unpin,
    rules: &Rules,
    loses_answer: &AtomicBool,
) -> io::Result<()> {
    // The first message says who is calling, and has no letter.
    let length = from_client.read_u32().await?;
    let first = rest(&mut from_client, length).await?;
    server.write_all(&[&length.to_be_bytes(), first.as_slice()].concat()).await?;
    loop {
        let letter = from_client.read_u8().await?;
        let length = from_client.read_u32().await?;
        let body = rest(&mut from_client, length).await?;
        let message = [&[letter], length.to_be_bytes().as_slice(), &body].concat();
        let text = String::from_utf8_lossy(&body);
        match rules.judge(&format!("{} {}", char::from(letter), text.trim_end_matches('\0'))) {
            None => {}
            Some(Fault::Cut { after_bytes }) => {
                return server.write_all(&message[..after_bytes.min(message.len())]).await;
            }
            Some(Fault::LoseAnswer) => loses_answer.store(true, Ordering::SeqCst),
            Some(Fault::Hold(gate)) => held(&gate).await,
            Some(other) => panic!("{other:?} does not apply to PostgreSQL"),
        }
        server.write_all(&message).await?;
    }
}

async fn rest(from: &mut OwnedReadHalf, length: u32) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn answers(
    mut server: impl AsyncRead + Unpin,
    mut to_client: OwnedWriteHalf,
    loses_answer: &AtomicBool,
) -> io::Result<()> {
    let (mut buffer, mut lost) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let count = server.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if loses_answer.load(Ordering::SeqCst) {
            // Only once all of it was said is it sure that the server has done what it was asked.
            lost.extend_from_slice(&buffer[..count]);
            if lost.ends_with(READY) {
                return Ok(());
            }
        } else {
            to_client.write_all(&buffer[..count]).await?;
        }
    }
}
