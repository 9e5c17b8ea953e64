//! Names in SQL text: states by their names, and lists of columns.

/// A value that SQL text may contain literally.
pub(in crate::db) trait InSql {
    /// Returns the text.
    fn in_sql(&self) -> String;
}

/// A list of columns, or another piece of SQL.
impl InSql for &'static str {
    fn in_sql(&self) -> String {
        (*self).to_owned()
    }
}

/// Builds SQL text once, and returns it as `&'static str`. Each `{name}` in the text stands for the value of
/// that name: the number of a state, or a piece of SQL. Arguments of the statement are `$1`, `$2` and so on.
///
/// States are literals and not arguments, because a plan for any argument cannot use a partial index.
macro_rules! sql {
    ($text:literal, $($name:ident = $value:expr),+ $(,)?) => {{
        static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            format!($text, $($name = $crate::db::sql::InSql::in_sql(&$value)),+)
        });
        TEXT.as_str()
    }};
}

pub(in crate::db) use sql;
