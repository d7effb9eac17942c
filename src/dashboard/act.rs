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

pub(super) fn buttons(offer: &Offer, session: &Session) -> Markup {
    let button = |what: &str, label: &str| {
        html! {
            form.inline method="post" action="/act" {
                (word(session))
                input type="hidden" name="what" value=(what);
                input type="hidden" name="check" value=(enc(&offer.check));
                button type="submit" { (label) " " (t(&offer.check)) }
            }
        }
    };
    html! { (button("check", "Run")) @if offer.repair { (button("repair", "Repair what it finds:")) } }
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
        ("repair", Some(offer)) if offer.repair => Action::Repair { name: name.clone() },
        _ => return Err(Oops::new(StatusCode::NOT_FOUND, "this is not offered for that check")),
    };
    let by = match peer {
        Some(Extension(ConnectInfo(address))) => format!("an operator at {}", address.ip()),
        None => "an operator".to_owned(),
    };
    actions.start(action, &by).await.map_err(|why| Oops::new(StatusCode::CONFLICT, why))?;
    Ok(Redirect::to(&format!("/check?name={}&asked=1", enc(&name))))
}
