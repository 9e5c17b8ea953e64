//! Forwards bytes in both directions without parsing them.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, copy},
    net::TcpStream,
};

use super::{Fault, Rules, wait_for_permit};

pub(super) async fn forward(
    client: TcpStream,
    mut server_reader: impl AsyncRead + Unpin,
    mut server_writer: impl AsyncWrite + Unpin,
    rules: &Rules,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let requests = async {
        match rules.find_fault("") {
            Some(Fault::CutRequest { after_bytes }) => {
                copy(&mut (&mut from_client).take(after_bytes as u64), &mut server_writer).await
            }
            Some(Fault::Hold(gate)) => {
                wait_for_permit(&gate).await;
                copy(&mut from_client, &mut server_writer).await
            }
            Some(other) => panic!("{other:?} does not apply to raw connections"),
            None => copy(&mut from_client, &mut server_writer).await,
        }
    };
    // When one side closes the connection, close the other.
    tokio::select! {
        result = requests => result.map(|_| ()),
        result = copy(&mut server_reader, &mut to_client) => result.map(|_| ()),
    }
}
