//! The server address and the token that a command uses.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{failure::Failure, port::find_port_advice};
use crate::client::{Client, ClientOptions};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// The address of the server: https://HOST:PORT, or http://HOST:PORT on a trusted network.
    #[arg(long, value_name = "URL", env = "STRONGROOM_SERVER")]
    pub server: Option<String>,
    /// The bearer token. Prefer STRONGROOM_TOKEN or --token-file, which keep it out of the shell's history.
    #[arg(long, value_name = "TOKEN", env = "STRONGROOM_TOKEN", hide_env_values = true)]
    #[arg(value_parser = parse_secret)]
    pub token: Option<SecretString>,
    /// A file that contains the token; overrides --token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Use the server that `strongroom dev --data-dir DIR` started. Its address and tokens are read from
    /// DIR/dev.json.
    #[arg(long, value_name = "DIR")]
    pub dev: Option<PathBuf>,
    /// With --dev: the caller whose token to use.
    #[arg(long = "as", value_name = "CALLER", requires = "dev", default_value = "acme_member")]
    pub dev_caller: String,
}

/// The fields of `dev.json` that the commands need.
#[derive(Deserialize)]
struct DevServer {
    grpc: String,
    tokens: BTreeMap<String, SecretString>,
}

impl ConnectionArgs {
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.client_options()?).await?)
    }

    /// Connects without a token.
    pub(super) async fn connect_as_visitor(&self) -> Result<Client, Failure> {
        let server = match &self.dev {
            Some(_) => self.dev_server()?.0,
            None => self.server()?,
        };
        Ok(Client::connect(self.options_for(server, SecretString::default())?).await?)
    }

    /// Returns advice if the server speaks another protocol than its address says.
    pub(super) async fn find_port_advice(&self) -> Option<String> {
        find_port_advice(&self.client_options().ok()?.endpoint).await
    }

    /// Returns a name for the server and the caller that is stable across runs. A server of `strongroom dev`
    /// may get a different port at every start, so its data directory is used instead.
    pub(super) fn server_identity(&self) -> String {
        match &self.dev {
            Some(directory) => {
                let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.clone());
                format!("dev {} {}", directory.display(), self.dev_caller)
            }
            None => self.server.clone().unwrap_or_default(),
        }
    }

    /// Returns the connection options. `--dev` sets both the server and the token, so that a token is never
    /// sent to a server it was not issued for.
    fn client_options(&self) -> Result<ClientOptions, Failure> {
        let (server, token) = match &self.dev {
            Some(_) => self.dev_server()?,
            None => (self.server()?, self.token()?),
        };
        self.options_for(server, token)
    }

    fn options_for(&self, server: String, token: SecretString) -> Result<ClientOptions, Failure> {
        let ca_certificates_pem = match &self.ca_file {
            Some(path) => {
                Some(fs::read(path).map_err(Failure::local_io(format!("read {}", path.display())))?)
            }
            None => None,
        };
        let user_agent = concat!("strongroom-cli/", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(ClientOptions { ca_certificates_pem, user_agent, ..ClientOptions::new(server, token) })
    }

    fn server(&self) -> Result<String, Failure> {
        self.server.clone().filter(|server| !server.is_empty()).ok_or_else(|| {
            Failure::Usage(
                "no server address; set STRONGROOM_SERVER=https://HOST:PORT, or pass --server, \
                 or --dev DIR for a server of `strongroom dev --data-dir DIR`"
                    .to_owned(),
            )
        })
    }

    fn token(&self) -> Result<SecretString, Failure> {
        let token = match &self.token_file {
            Some(path) => {
                let text = fs::read_to_string(path);
                let text =
                    text.map_err(Failure::local_io(format!("read the token from {}", path.display())))?;
                Some(SecretString::from(text.trim()))
            }
            None => self.token.clone(),
        };
        token.filter(|token| !token.expose_secret().is_empty()).ok_or_else(|| {
            Failure::Usage("no token; set STRONGROOM_TOKEN, or pass --token-file FILE".to_owned())
        })
    }

    fn dev_server(&self) -> Result<(String, SecretString), Failure> {
        let directory = self.dev.clone().unwrap_or_default();
        let path = directory.join("dev.json");
        let text = fs::read_to_string(&path).map_err(|error| {
            let (path, directory) = (path.display(), directory.display());
            Failure::Usage(format!(
                "failed to read {path} ({error}); \
                 start the server with `strongroom dev --data-dir {directory}`"
            ))
        })?;
        let mut server: DevServer = serde_json::from_str(&text).map_err(|error| {
            Failure::Usage(format!(
                "{} was not written by this version of `strongroom dev`: {error}",
                path.display()
            ))
        })?;
        let Some(token) = server.tokens.remove(&self.dev_caller) else {
            let callers = server.tokens.into_keys().collect::<Vec<_>>().join(", ");
            return Err(Failure::Usage(format!(
                "unknown caller {:?}; use one of {callers}",
                self.dev_caller
            )));
        };
        Ok((server.grpc, token))
    }
}

pub(super) fn parse_secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(arguments: &ConnectionArgs) -> String {
        arguments.client_options().unwrap_err().to_string()
    }

    #[test]
    fn missing_server_or_token_error_says_how_to_set_it() {
        let nothing = ConnectionArgs::default();
        assert!(error_of(&nothing).contains("STRONGROOM_SERVER=https://HOST:PORT"));
        let server = ConnectionArgs { server: Some("http://a:1".into()), ..nothing };
        assert!(error_of(&server).contains("STRONGROOM_TOKEN"));
    }

    #[test]
    fn dev_sets_both_server_and_token() {
        let directory = tempfile::tempdir().unwrap();
        let dev = ConnectionArgs {
            dev: Some(directory.path().to_owned()),
            dev_caller: "acme_admin".to_owned(),
            server: Some("https://elsewhere:1".to_owned()),
            token: Some("production".into()),
            ..ConnectionArgs::default()
        };
        assert!(error_of(&dev).contains("start the server with `strongroom dev --data-dir"));

        let json =
            r#"{"grpc": "http://127.0.0.1:5", "edge": "", "tokens": {"acme_admin": "t"}, "callers": {}}"#;
        fs::write(directory.path().join("dev.json"), json).unwrap();
        let options = dev.client_options().unwrap();
        assert_eq!((options.endpoint.as_str(), options.token.expose_secret()), ("http://127.0.0.1:5", "t"));
        assert_eq!(
            error_of(&ConnectionArgs { dev_caller: "bob".into(), ..dev }),
            "unknown caller \"bob\"; use one of acme_admin"
        );
    }

    #[test]
    fn token_file_is_read_without_line_ending() {
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
