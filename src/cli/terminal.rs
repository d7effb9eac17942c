//! Progress on standard error: bars on a terminal, quiet lines elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::args::Color;
use crate::agent::{Event, Phase};
use crate::coordinator::RunEvent;
use crate::model::Role;
use crate::report::render::grouped;

/// Whether to colour what goes to standard output.
pub(super) fn color(wish: Color, to_terminal: bool) -> bool {
    match wish {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => to_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

#[derive(Debug)]
pub(super) enum Progress {
    Bars(Bars),
    Lines(BTreeMap<usize, String>),
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Bars {
    all: MultiProgress,
    tables: BTreeMap<usize, TableBars>,
}

#[derive(Debug)]
struct TableBars {
    name: String,
    source: ProgressBar,
    target: ProgressBar,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            Self::Nothing
        } else if std::io::stderr().is_terminal() {
            Self::Bars(Bars::default())
        } else {
            Self::Lines(BTreeMap::new())
        }
    }

    pub(super) fn show(&mut self, event: &RunEvent) {
        match self {
            Self::Bars(bars) => bars.show(event),
            Self::Lines(names) => {
                if let Some(line) = quiet_line(names, event) {
                    // Standard error that is closed is nobody's error.
                    let _ = writeln!(std::io::stderr().lock(), "{line}");
                }
            }
            Self::Nothing => {}
        }
    }

    pub(super) fn clear(&mut self) {
        if let Self::Bars(bars) = self {
            let _ = bars.all.clear();
        }
    }
}

/// A line where something begins or is known; nothing in between.
fn quiet_line(names: &mut BTreeMap<usize, String>, event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::Planned { table, name, .. } => {
            names.insert(*table, name.clone());
            None
        }
        RunEvent::Table { table, event } => {
            let name = names.get(table)?;
            match event {
                Event::Phase { phase: Phase::Scan } => Some(format!("{name}: reading both sides")),
                Event::Located { missing, changed, extra } if missing + changed + extra > 0 => Some(format!(
                    "{name}: {} missing, {} changed, {} extra at first sight",
                    grouped(*missing),
                    grouped(*changed),
                    grouped(*extra)
                )),
                Event::Phase { phase: Phase::Verify } => Some(format!("{name}: verifying")),
                Event::UndoLimits { limits } => Some(undo_limits(name, limits)),
                _ => None,
            }
        }
        RunEvent::Finished { .. } => None,
    }
}

/// Said before the first row is written.
fn undo_limits(name: &str, limits: &[String]) -> String {
    limits.iter().map(|limit| format!("{name}: note: {limit}")).collect::<Vec<_>>().join("\n")
}

impl Bars {
    fn show(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Planned { table, name, source_rows, target_rows } => {
                let bar = |side: Role, rows: &Option<u64>| {
                    let bar = self.all.add(match rows {
                        Some(rows) => ProgressBar::new(*rows)
                            .with_style(style("{prefix} {bar:24} {human_pos} rows, {rate}, {eta} left")),
                        None => ProgressBar::new_spinner()
                            .with_style(style("{prefix} {spinner} {human_pos} rows, {rate}")),
                    });
                    bar.enable_steady_tick(Duration::from_millis(200));
                    bar.with_prefix(format!("{name} {side}"))
                };
                let bars = TableBars {
                    name: name.clone(),
                    source: bar(Role::Source, source_rows),
                    target: bar(Role::Target, target_rows),
                };
                self.tables.insert(*table, bars);
            }
            RunEvent::Table { table, event } => self.table(*table, event),
            RunEvent::Finished { table, .. } => {
                if let Some(bars) = self.tables.remove(table) {
                    bars.source.finish_and_clear();
                    bars.target.finish_and_clear();
                }
            }
        }
    }

    fn table(&self, table: usize, event: &Event) {
        let Some(bars) = self.tables.get(&table) else { return };
        match event {
            Event::Progress { side, rows } => {
                let bar = if *side == Role::Source { &bars.source } else { &bars.target };
                // An estimate that was too low must not show more than all.
                if bar.length().is_some_and(|length| *rows > length) {
                    bar.set_length(*rows);
                }
                bar.set_position(*rows);
            }
            Event::Located { missing, changed, extra } if missing + changed + extra > 0 => {
                let _ = self.all.println(format!(
                    "{}: {} missing, {} changed, {} extra at first sight",
                    bars.name,
                    grouped(*missing),
                    grouped(*changed),
                    grouped(*extra)
                ));
            }
            Event::Worked { done, of } => {
                bars.source.finish_and_clear();
                bars.target.set_style(style(
                    "{prefix} {bar:24} {human_pos} of {human_len} rows, {rate}, {eta} left",
                ));
                bars.target.set_length(*of);
                bars.target.set_position(*done);
            }
            Event::Phase { phase: Phase::Verify } => bars.target.set_message("verifying"),
            Event::UndoLimits { limits } => drop(self.all.println(undo_limits(&bars.name, limits))),
            Event::Done { .. } | Event::Failed { .. } => {
                bars.source.finish_and_clear();
                bars.target.finish_and_clear();
            }
            _ => {}
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Whole rows: tenths of a row tell nothing.
        let rows = format!("{:.0}", state.per_sec()).parse().unwrap_or(0);
        let _ = write!(out, "{}/s", grouped(rows));
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", rate)
}
