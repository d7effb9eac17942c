//! The files that `trueup init` writes: a commented configuration, and the names of what belongs in the environment.

use std::fmt::Write;

/// How an endpoint is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `env:NAME`, or a URL without a password.
    pub written: String,
    /// The variable that must be set, where it is one.
    pub variable: Option<String>,
}

impl Place {
    /// A URL that holds a password is not written down: `variable` is to hold it.
    pub fn of(typed: &str, variable: &str) -> Self {
        let variable = match typed.strip_prefix("env:") {
            Some(name) => Some(name.to_owned()),
            None => super::url::holds_password(typed).then(|| variable.to_owned()),
        };
        let written = variable.as_ref().map_or_else(|| typed.to_owned(), |name| format!("env:{name}"));
        Self { written, variable }
    }
}

/// `tables`: names that both sides have; none where they could not be asked.
pub fn config(source: &Place, target: &Place, tables: &[String]) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut out = String::from(
        "# trueup.toml: what is compared with what, and which checks must hold.\n\
         # Reference: docs/configuration.md. Try it: trueup config check\n\n\
         # Secrets are named, never written here: env:NAME reads a whole URL from the environment,\n\
         # url_file = \"PATH\" from a file.\n",
    );
    for (name, place) in [("source", source), ("target", target)] {
        let _ = writeln!(out, "[endpoints.{name}]\nurl = {}\n", quoted(&place.written));
    }
    out.push_str(
        "# An agent beside a database, instead of its URL:\n\
         # [endpoints.west]\n# url = \"grpcs://west.example:7443\"\n# ca = \"ca.pem\"\n# token = \"env:API_KEY\"\n\n\
         [pairs.main]\nsource = \"source\"\ntarget = \"target\"\n\
         # A column that only one side has is a difference; accept all of them, or some: unpaired = [\"note\"]\n\
         # unpaired = \"ignore\"\n\
         # Without tables: every table that both sides have. A table may have options of its own:\n\
         # { table = \"orders\", exclude = [\"note\"], map = { a = \"b\" }, where = \"id > 100\", tolerance = { amount = 0.01 } }\n",
    );
    if tables.is_empty() {
        out.push_str("# tables = [\"orders\"]\n");
    } else {
        out.push_str("tables = [\n");
        for table in tables {
            let _ = writeln!(out, "    {},", quoted(table));
        }
        out.push_str("]\n");
    }
    out.push_str(
        "\n# Checks run with: trueup check [NAME]...\n\
         # kinds: rows, count, sum, min, max, null_share, freshness, gaps, duplicates, sql\n\
         [checks.all-counts]\npair = \"main\"\nkind = \"count\"\n\n\
         [checks.all-rows]\npair = \"main\"\nkind = \"rows\"\nseverity = \"critical\"\n\
         # What may be done about differences: \"never\", \"dry_run\", or { up_to = 100 } changed rows.\n\
         repair = \"never\"\n\n\
         # [checks.recent-orders]\n# pair = \"main\"\n# table = \"orders\"\n# kind = \"gaps\"\n# column = \"placed_at\"\n\
         # step = \"day\"\n# window = { column = \"placed_at\", last = \"30days\", settle = \"5m\" }\n\
         # tolerance = { rows = 10 }\n# owner = \"data-team\"\n# schedule = \"nightly\"\n\n\
         # trueup serve runs every check when it is due; without a schedule every two minutes.\n\
         # [schedules.nightly]\n# when = \"30 2 * * *\"\n# time_zone = \"Europe/Berlin\"\n\n\
         # [serve]\n# listen = \"127.0.0.1:8420\"\n# public_url = \"https://trueup.example\"\n# concurrency = 2\n\n\
         # Who is told: webhook, slack, pagerduty, email or command.\n\
         # [alerts.on-call]\n# kind = \"webhook\"\n# url = \"env:ALERT_URL\"\n# secret = \"env:ALERT_SECRET\"\n# min_severity = \"warning\"\n\n\
         # Where runs, the audit trail and alerts are kept: a file, or env:NAME of a postgres:// URL that several coordinators share.\n\
         # [storage]\n# ledger = \"ledger.db\"\n\n\
         # [retention]\n# runs = \"90days\"\n# last_runs = 1000\n# trail = \"10years\"\n",
    );
    out
}

/// Names only.
pub fn environment(places: [&Place; 2]) -> String {
    let mut out = String::from(
        "# What trueup reads from the environment. Copy this to .env, fill it in, keep it out of version control:\n\
         #   set -a; . ./.env; set +a\n\n# Whole URLs: postgres://USER:PASSWORD@HOST:PORT/DATABASE, mysql://..., sqlite://PATH\n",
    );
    let mut names: Vec<&str> = places.iter().filter_map(|place| place.variable.as_deref()).collect();
    names.extend(["DATABASE_URL", "TARGET_DATABASE_URL"]);
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            let _ = writeln!(out, "{name}=");
            seen.push(name);
        }
    }
    out.push_str(
        "\n# The token that agents ask for (token = \"env:API_KEY\", trueup agent --token-env API_KEY)\nAPI_KEY=\n\n\
         # Where alerts go, and the key that signs them\nALERT_URL=\nALERT_SECRET=\n\n\
         # The database that `trueup agent` serves\nTRUEUP_DATABASE_URL=\n\n# A filter for the log on standard error: trueup=debug\nTRUEUP_LOG=\n",
    );
    out
}
