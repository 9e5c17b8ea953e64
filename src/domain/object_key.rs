//! placeholder until the storage room is merged
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey(String);
impl ObjectKey {
    pub fn parse(s: &str) -> Result<Self, String> {
        Ok(Self(s.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
