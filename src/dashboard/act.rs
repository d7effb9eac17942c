//! Starting a run or a repair: for operators alone, and only what is offered.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};

use super::gate::Fields;
use super::look::{Oops, enc, t, word};
use super::session::{Right, Session};
use super::{Action, Offer, Site};

/// More than these are not repaired by a button.
const UP_TO_MAX: u64 = 1_000_000;

pub(super) fn buttons(offer: &Offer, session: &Session) -> Markup {
    let form = |what: &str, inner: &Markup| {
        html! {
            form.inline method="post" action="/act" {
                (word(session))
                input type="hidden" name="what" value=(what);
                input type="hidden" name="check" value=(enc(&offer.check));
                (inner)
            }
        }
    };
    html! {
        (form("check", &html! { button type="submit" { "Run " (t(&offer.check)) } }))
        @if let Some(up_to) = offer.repair {
            (form("repair", &html! {
                button type="submit" { "Repair what " (t(&offer.check)) " finds" }
                label { " if at most " input type="number" name="up_to" min="1" max=(UP_TO_MAX) required value=(up_to); " rows change" }
            }))
        }
    }
}

pub(super) async fn act(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Extension(fields): Extension<Fields>,
) -> Result<Redirect, Oops> {
    let may = session.is_some_and(|session| session.right == Right::Operate);
    if !may {
        return Err(Oops::refused("this needs the right to operate: log in with the token of operators"));
    }
    let Some(actions) = &site.settings.actions else {
        return Err(Oops::new(
            StatusCode::CONFLICT,
            "this dashboard only shows: trueup serve can also start runs",
        ));
    };
    let name = percent_encoding::percent_decode_str(fields.get("check")).decode_utf8_lossy().into_owned();
    let offered = actions.offers().await.into_iter().find(|offer| offer.check == name);
    let action = match (fields.get("what"), offered) {
        ("check", Some(_)) => Action::Check { name: name.clone() },
        ("repair", Some(offer)) if offer.repair.is_some() => {
            let up_to = fields.get("up_to").trim().parse().ok().filter(|rows| (1..=UP_TO_MAX).contains(rows));
            let what = "say how many rows may change at most: a number from 1 to 1000000";
            let up_to = up_to.ok_or_else(|| Oops::new(StatusCode::UNPROCESSABLE_ENTITY, what))?;
            Action::Repair { name: name.clone(), up_to }
        }
        _ => return Err(Oops::new(StatusCode::NOT_FOUND, "this is not offered for that check")),
    };
    let by = match peer {
        Some(Extension(ConnectInfo(address))) => format!("an operator at {}", address.ip()),
        None => "an operator".to_owned(),
    };
    actions.start(action, &by).await.map_err(|why| Oops::new(StatusCode::CONFLICT, why))?;
    Ok(Redirect::to(&format!("/check?name={}&asked=1", enc(&name))))
}
