//! The list of runs, filtered and by pages.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Html;
use maud::{Markup, html};

use super::Site;
use super::look::{Frame, Oops, enc, runs_table, t};
use super::session::Session;
use crate::ledger::RunFilter;

const PAGE: usize = 50;
const KINDS: &[&str] = &["diff", "repair", "backfill", "check", "undo"];
const OUTCOMES: &[&str] = &["same", "different", "unknown", "failed", "interrupted", "abandoned", "open"];

fn given(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// As the form sends it: what is not chosen is empty.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    kind: String,
    outcome: String,
    table: String,
    since: String,
    before: String,
}

impl Wanted {
    fn filter(&self, tables: Vec<String>) -> RunFilter {
        RunFilter {
            kind: given(&self.kind),
            outcome: given(&self.outcome),
            tables,
            since: given(&self.since),
            before: given(&self.before),
            undoes: None,
            limit: Some(PAGE as u64 + 1),
        }
    }

    /// The address of the page behind `before`.
    fn path(&self, before: &str) -> String {
        let fields = [
            ("kind", self.kind.as_str()),
            ("outcome", &self.outcome),
            ("table", &self.table),
            ("since", &self.since),
            ("before", before),
        ];
        let fields: Vec<String> = fields
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", enc(value)))
            .collect();
        if fields.is_empty() { "/runs".to_owned() } else { format!("/runs?{}", fields.join("&")) }
    }
}

pub(super) async fn page(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
    Query(wanted): Query<Wanted>,
) -> Result<Html<String>, Oops> {
    let session = session.ok_or_else(|| Oops::refused("log in first"))?;
    let (tables, unknown) = match given(&wanted.table) {
        None => (Vec::new(), None),
        Some(table) => match site.ledger().tables_named(&table).await {
            Ok(tables) => (tables, None),
            Err(error) => (Vec::new(), Some(error)),
        },
    };
    let mut runs = match unknown {
        Some(_) => Vec::new(),
        None => site.ledger().runs(&wanted.filter(tables)).await?,
    };
    let more = runs.len() > PAGE;
    runs.truncate(PAGE);
    let next = runs.last().filter(|_| more).map(|run| wanted.path(&run.id));
    let body = html! {
        (form(&wanted))
        @if let Some(error) = &unknown { p.unknown { (t(&error.what)) ": " (t(&error.hint)) } }
        (runs_table("Runs", &runs))
        div.pages {
            @if !wanted.before.is_empty() { a href=(wanted.path("")) { "The newest" } }
            @if let Some(next) = next { a href=(next) rel="next" { "Older runs" } }
        }
    };
    Ok(Frame::new("Runs", "/runs", &session).live().page(&body))
}

fn form(wanted: &Wanted) -> Markup {
    let choice = |name: &str, label: &str, all: &[&str], chosen: &str| {
        html! {
            label {
                (label)
                select name=(name) {
                    option value="" { "any" }
                    @for one in all { option value=(one) selected[*one == chosen] { (one) } }
                }
            }
        }
    };
    html! {
        form.filter method="get" action="/runs" {
            (choice("kind", "Kind", KINDS, &wanted.kind))
            (choice("outcome", "Outcome", OUTCOMES, &wanted.outcome))
            label { "Table" input name="table" value=(t(&wanted.table)) autocomplete="off"; }
            label { "Since (UTC)" input type="date" name="since" value=(t(&wanted.since)); }
            button type="submit" { "Show" }
            a href="/runs" { "All" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_keeps_the_filter() {
        let wanted = Wanted { kind: "diff".into(), table: "a&b".into(), ..Wanted::default() };
        assert_eq!(wanted.path("r-1"), "/runs?kind=diff&table=a%26b&before=r%2D1");
        assert_eq!(Wanted::default().path(""), "/runs");
        assert_eq!(Wanted { outcome: " ".into(), ..Wanted::default() }.filter(Vec::new()).outcome, None);
    }
}
