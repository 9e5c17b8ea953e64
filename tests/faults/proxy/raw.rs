//! Bytes both ways, whatever they mean.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, copy},
    net::TcpStream,
};

use super::{Fault, Rules, held};

pub(super) async fn converse(
    client: TcpStream,
    mut server_reader: impl AsyncRead + Unpin,
    mut server_writer: impl AsyncWrite + Unpin,
    rules: &Rules,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let there = async {
        match rules.judge("") {
            Some(Fault::Cut { after_bytes }) => {
                copy(&mut (&mut from_client).take(after_bytes as u64), &mut server_writer).await
            }
            Some(Fault::Hold(gate)) => {
                held(&gate).await;
                copy(&mut from_client, &mut server_writer).await
            }
            Some(other) => panic!("{other:?} does not apply to bytes"),
            None => copy(&mut from_client, &mut server_writer).await,
        }
    };
    // Whichever side ends first, ends both.
    tokio::select! {
        ended = there => ended.map(|_| ()),
        ended = copy(&mut server_reader, &mut to_client) => ended.map(|_| ()),
    }
}
