//! Cursors as the version before epochs sealed them.

use strongroom::{crypto::sealer::Sealer, domain::clock::Clock as _};

use super::Service;

impl Service {
    /// Seals a cursor at the bound of a snapshot, as the version before epochs did.
    pub(crate) async fn seal_former_cursor(&self, xid: i64, incarnation: &str) -> String {
        let tenant = uuid::Uuid::parse_str(&self.alice().tenant_id().await).unwrap();
        let purpose = [b"watch cursor ".as_slice(), tenant.as_bytes()].concat();
        let position = format!("{xid:016x}{:016x}", 0);
        let cursor = serde_json::json!({ "p": position, "t": self.clock.now(), "i": incarnation });
        Sealer::new(&[7; 32]).unwrap().seal(&purpose, cursor.to_string().as_bytes()).unwrap()
    }
}
