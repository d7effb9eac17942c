//! Tables by name, with their schema or without.

use std::collections::BTreeSet;

use super::store::{Row, Step};
use super::{Ledger, LedgerError};
use crate::model::schema::TableName;

/// Where nothing is near, so many names are shown.
const NAMES_SHOWN: usize = 10;

impl Ledger {
    /// Every name of a table that runs, checks or the trail know.
    async fn table_names(&self) -> Result<BTreeSet<String>, LedgerError> {
        // One look into the index for each name, however long the trail is.
        let trail = "WITH RECURSIVE names (name) AS (
                SELECT min(target_table) FROM trueup_audit
                UNION ALL
                SELECT (SELECT min(target_table) FROM trueup_audit WHERE target_table > names.name) FROM names
                WHERE names.name IS NOT NULL)
             SELECT name FROM names WHERE name <> ''";
        let steps = [
            "SELECT DISTINCT source_table FROM trueup_tables",
            "SELECT DISTINCT target_table FROM trueup_tables",
            "SELECT DISTINCT source_table FROM trueup_checks WHERE source_table IS NOT NULL",
            trail,
        ];
        let steps = steps.map(|sql| Step::query(sql, Vec::new()).slow()).to_vec();
        let given = self.store.run(steps).await?;
        Ok(given.into_iter().flat_map(|given| given.rows).map(|mut row: Row| row.text()).collect())
    }

    /// The names under which the ledger knows a table: as it was written, or with or without its schema. An error names the
    /// nearest one where it knows none.
    pub async fn tables_named(&self, text: &str) -> Result<Vec<String>, LedgerError> {
        let known = self.table_names().await?;
        let asked = TableName::parse(text).map_or_else(|_| text.to_owned(), |name| name.to_string());
        let found: Vec<String> = known.iter().filter(|known| is_same(&asked, known)).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        // Databases fold the case of names in their own ways.
        let folded = asked.to_lowercase();
        let found: Vec<String> =
            known.iter().filter(|known| is_same(&folded, &known.to_lowercase())).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        Err(LedgerError::new(format!("the ledger knows no table {text}"), nearest(&asked, &known)))
    }
}

/// Whether two names can be of one table: equal, or one of them with a schema and the other without.
fn is_same(asked: &str, known: &str) -> bool {
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    };
    asked == known || ends(known, asked) || ends(asked, known)
}

fn nearest(asked: &str, known: &BTreeSet<String>) -> String {
    let bare = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
    let far = |known: &String| strsim::damerau_levenshtein(&bare(asked), &bare(known));
    let near = known.iter().min_by_key(|known| far(known));
    match near {
        Some(near) if far(near) <= (bare(asked).chars().count() / 3).max(2) => {
            format!("did you mean {near}?")
        }
        Some(_) => {
            let shown: Vec<&str> = known.iter().take(NAMES_SHOWN).map(String::as_str).collect();
            let more = if known.len() > NAMES_SHOWN { ", ..." } else { "" };
            format!("it knows {}{more}", shown.join(", "))
        }
        None => "no run of it has touched a table yet; is it another --ledger?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_with_or_without_its_schema() {
        for (asked, known, same) in [
            ("orders", "public.orders", true),
            ("public.orders", "orders", true),
            ("orders", "orders", true),
            ("public.orders", "archive.orders", false),
            ("orders", "public.reorders", false),
            ("orders", "public.orders_old", false),
            ("public.orders", "public.orders", true),
            ("", "orders", false),
        ] {
            assert_eq!(is_same(asked, known), same, "{asked} and {known}");
        }
    }

    #[test]
    fn the_nearest_name_is_told() {
        let known = ["public.orders", "public.customers"].map(str::to_owned).into();
        assert_eq!(nearest("ordrs", &known), "did you mean public.orders?");
        assert_eq!(nearest("publik.order", &known), "did you mean public.orders?");
        assert_eq!(nearest("invoices_2024", &known), "it knows public.customers, public.orders");
        assert!(nearest("x", &BTreeSet::new()).contains("another --ledger"));
    }
}
