//! Detects the protocol of a port after a call to it failed, because callers may confuse the ports, or http and
//! https.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use url::Url;

/// The time in which the port must respond.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// The first byte of a TLS alert, with which a TLS server rejects clear text.
const TLS_ALERT: u8 = 0x15;

/// Returns advice if the server at this address uses another protocol than the address states. The token is not
/// sent.
pub(super) async fn find_port_advice(server: &str) -> Option<String> {
    let server: Url = server.parse().ok()?;
    let address = (server.host_str()?.to_owned(), server.port_or_known_default()?);
    let response = timeout(TIME_LIMIT, request_liveness(&address)).await.ok()?.ok()?;
    describe_port(&response, server.scheme() == "https", address.1)
}

/// Sends a request of HTTP/1 and returns the first bytes of the response.
async fn request_liveness((host, port): &(String, u16)) -> std::io::Result<Vec<u8>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((host, *port)).await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: strongroom\r\nconnection: close\r\n\r\n").await?;
    let mut response = vec![0; 9];
    let mut size = 0;
    while size < response.len() {
        match stream.read(&mut response[size..]).await? {
            0 => break,
            read => size += read,
        }
    }
    response.truncate(size);
    Ok(response)
}

fn describe_port(response: &[u8], is_https: bool, port: u16) -> Option<String> {
    // A server of HTTP/2 begins with a frame of settings: three bytes of length, then the type 4.
    let is_clear_http2 = response.len() >= 4 && response[3] == 4;
    if response.starts_with(b"HTTP/1") {
        return Some(format!(
            "port {port} does not serve gRPC; it may be the port for probes and metrics (8080 by default): use the gRPC \
             port (50051 by default)"
        ));
    }
    if is_https && is_clear_http2 {
        return Some(format!("port {port} does not use TLS: use http:// on a trusted network"));
    }
    (!is_https && response.first() == Some(&TLS_ALERT)).then(|| format!("port {port} uses TLS: use https://"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn mixed_up_ports_and_schemes_are_described() {
        let described = |response: &[u8], is_https| describe_port(response, is_https, 7).unwrap_or_default();
        assert!(described(b"HTTP/1.1 ", false).contains("probes and metrics"));
        assert!(described(b"HTTP/1.1 ", true).contains("probes and metrics"));
        assert!(described(&[0, 0, 18, 4, 0, 0, 0, 0, 0], true).contains("use http://"));
        assert!(described(&[TLS_ALERT, 3, 3, 0, 2, 2, 22], false).contains("use https://"));
        assert_eq!(described(&[0, 0, 18, 4, 0, 0, 0, 0, 0], false), "");
        assert_eq!(described(b"", true), "");
    }

    #[tokio::test]
    async fn http_port_is_recognized_by_its_response() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let respond = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        };
        let (advice, ()) = tokio::join!(find_port_advice(&server), respond);
        assert!(advice.unwrap().contains("gRPC port"));
    }
}
