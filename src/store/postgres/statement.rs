//! What the server does in one step: a statement each, for one table.

use std::fmt;

/// Makes the table.
pub(super) const MIGRATION: &str = include_str!("migration.sql");

/// What the files call the table.
const WRITTEN: &str = "tower_refresh_records";

/// The statements for one table. Their values are parameters, of which each file tells.
pub(super) struct Statements {
    pub(super) migration: String,
    pub(super) read: String,
    /// Takes the lease, or gives a later record, or says for how long another holder has it.
    pub(super) acquire: String,
    pub(super) intend: String,
    pub(super) renew: String,
    pub(super) save: String,
    pub(super) keep: String,
    pub(super) delete: String,
    pub(super) release: String,
    pub(super) sweep: String,
}

/// The name of a table. Both parts have only letters, digits and `_`, so that they can be quoted
/// as they are.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) schema: Option<String>,
    pub(super) prefix: String,
}

impl Statements {
    pub(super) fn new(table: &Table) -> Self {
        let table = table.to_string();
        let of = |text: &str| text.replace(WRITTEN, &table);
        Self {
            migration: of(MIGRATION),
            read: of(include_str!("read.sql")),
            acquire: of(include_str!("acquire.sql")),
            intend: of(include_str!("intend.sql")),
            renew: of(include_str!("renew.sql")),
            save: of(include_str!("save.sql")),
            keep: of(include_str!("keep.sql")),
            delete: of(include_str!("delete.sql")),
            release: of(include_str!("release.sql")),
            sweep: of(include_str!("sweep.sql")),
        }
    }
}

impl Table {
    /// The channel of those who wait. Channels know no schemas.
    pub(super) fn channel(&self) -> String {
        let schema = self.schema.as_deref().map(|schema| format!("{schema}."));
        format!("{}{}_wake", schema.unwrap_or_default(), self.prefix)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "\"{schema}\".")?;
        }
        write!(f, "\"{}_records\"", self.prefix)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
