//! Which server a command talks to, and as whom.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::failure::Failure;
use crate::client::{Client, ClientOptions};

/// Where server and token come from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// The server: https://host:port, or http://host:port where the network itself is trusted
    #[arg(long, value_name = "URL", env = "STRONGROOM_SERVER")]
    pub server: Option<String>,
    /// The bearer token. The environment and --token-file keep it out of the shell's history
    #[arg(long, value_name = "TOKEN", env = "STRONGROOM_TOKEN", hide_env_values = true)]
    #[arg(value_parser = secret)]
    pub token: Option<SecretString>,
    /// A file that holds the token; it wins over --token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate authorities to trust, as PEM, instead of those of the system
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Talk to the server that `strongroom dev --data-dir DIR` started. Server and token come from
    /// DIR/dev.json
    #[arg(long, value_name = "DIR")]
    pub dev: Option<PathBuf>,
    /// With --dev: which of its callers to be
    #[arg(long = "as", value_name = "CALLER", requires = "dev", default_value = "acme_member")]
    pub dev_caller: String,
}

/// What the commands need of `dev.json`.
#[derive(Deserialize)]
struct DevServer {
    grpc: String,
    tokens: BTreeMap<String, SecretString>,
}

impl ConnectionArgs {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.options()?).await?)
    }

    /// What the server is called from run to run. One of `strongroom dev` may come back under another port.
    pub(super) fn place(&self) -> String {
        match &self.dev {
            Some(directory) => {
                let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.clone());
                format!("dev {} {}", directory.display(), self.dev_caller)
            }
            None => self.server.clone().unwrap_or_default(),
        }
    }

    /// What to connect with. `--dev` decides both server and token, so that a token of the one never goes to
    /// another.
    fn options(&self) -> Result<ClientOptions, Failure> {
        let (server, token) = match &self.dev {
            Some(_) => self.dev_server()?,
            None => (self.server()?, self.token()?),
        };
        let ca_certificates_pem = match &self.ca_file {
            Some(path) => Some(fs::read(path).map_err(Failure::local(format!("read {}", path.display())))?),
            None => None,
        };
        let user_agent = concat!("strongroom-cli/", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(ClientOptions { ca_certificates_pem, user_agent, ..ClientOptions::new(server, token) })
    }

    fn server(&self) -> Result<String, Failure> {
        self.server.clone().filter(|server| !server.is_empty()).ok_or_else(|| {
            Failure::Usage(
                "no server: set STRONGROOM_SERVER=https://HOST:PORT or pass --server; \
                 for a server of `strongroom dev --data-dir DIR` pass --dev DIR"
                    .to_owned(),
            )
        })
    }

    fn token(&self) -> Result<SecretString, Failure> {
        let token = match &self.token_file {
            Some(path) => {
                let text = fs::read_to_string(path);
                let text = text.map_err(Failure::local(format!("read the token in {}", path.display())))?;
                Some(SecretString::from(text.trim()))
            }
            None => self.token.clone(),
        };
        token.filter(|token| !token.expose_secret().is_empty()).ok_or_else(|| {
            Failure::Usage(
                "no token: set STRONGROOM_TOKEN, or pass --token-file FILE with the token in it".to_owned(),
            )
        })
    }

    fn dev_server(&self) -> Result<(String, SecretString), Failure> {
        let directory = self.dev.clone().unwrap_or_default();
        let path = directory.join("dev.json");
        let text = fs::read_to_string(&path).map_err(|error| {
            let (path, directory) = (path.display(), directory.display());
            Failure::Usage(format!(
                "{path} cannot be read ({error}); \
                 start the server with `strongroom dev --data-dir {directory}`"
            ))
        })?;
        let mut server: DevServer = serde_json::from_str(&text).map_err(|error| {
            Failure::Usage(format!("{} is not what `strongroom dev` writes: {error}", path.display()))
        })?;
        let Some(token) = server.tokens.remove(&self.dev_caller) else {
            let callers = server.tokens.into_keys().collect::<Vec<_>>().join(", ");
            return Err(Failure::Usage(format!(
                "there is no caller {:?}; there are {callers}",
                self.dev_caller
            )));
        };
        Ok((server.grpc, token))
    }
}

fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(arguments: &ConnectionArgs) -> String {
        arguments.options().unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_set_it() {
        let nothing = ConnectionArgs::default();
        assert!(said(&nothing).contains("STRONGROOM_SERVER=https://HOST:PORT"));
        let server = ConnectionArgs { server: Some("http://a:1".into()), ..nothing };
        assert!(said(&server).contains("STRONGROOM_TOKEN"));
    }

    #[test]
    fn a_dev_server_decides_both_address_and_token() {
        let directory = tempfile::tempdir().unwrap();
        let dev = ConnectionArgs {
            dev: Some(directory.path().to_owned()),
            dev_caller: "acme_admin".to_owned(),
            server: Some("https://elsewhere:1".to_owned()),
            token: Some("production".into()),
            ..ConnectionArgs::default()
        };
        assert!(said(&dev).contains("start the server with `strongroom dev --data-dir"));

        let json =
            r#"{"grpc": "http://127.0.0.1:5", "edge": "", "tokens": {"acme_admin": "t"}, "callers": {}}"#;
        fs::write(directory.path().join("dev.json"), json).unwrap();
        let options = dev.options().unwrap();
        assert_eq!((options.endpoint.as_str(), options.token.expose_secret()), ("http://127.0.0.1:5", "t"));
        assert_eq!(
            said(&ConnectionArgs { dev_caller: "bob".into(), ..dev }),
            "there is no caller \"bob\"; there are acme_admin"
        );
    }

    #[test]
    fn a_token_file_is_read_without_its_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "t\n").unwrap();
        let arguments = ConnectionArgs {
            token_file: Some(path),
            token: Some("other".into()),
            ..ConnectionArgs::default()
        };
        assert_eq!(arguments.token().unwrap().expose_secret(), "t");
    }
}
