//! The tables of a database, as an agent lists them.

use crate::model::TableName;

/// What an agent says that it has, where all tables are asked for.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    pub tables: Vec<TableName>,
    /// What a comparison of all tables does not look at: kind and name.
    pub left_out: Vec<String>,
    /// The agent was started for some tables only, and tells nothing of others.
    pub partial: bool,
}
