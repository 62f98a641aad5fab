package supervisor

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"

	"companion/actors/authority/custody"
	"companion/actors/authority/manifest"
	"companion/actors/authority/session"
	"companion/adapters/authority/keychain"
	"companion/adapters/authority/oauth"
	"companion/adapters/authority/selection"
	"companion/adapters/authority/sessionnote"
	"companion/adapters/authority/tuf"
	"companion/messages"
)

// scope is the OAuth scope that the daemon requests (hub.md): the rights of a member, never more.
const scope = "vault:read vault:write"

// authorityWing builds the actors that may hold the user's secrets: custody, session, manifest. hub is the HTTP
// client for the hub; fatal is called if there is no keychain at the start.
func authorityWing(o Options, b boxes, hub *http.Client, fatal func(messages.Reason)) ([]suture.Service, error) {
	s := o.Settings
	secrets, err := keychain.Open(keychain.Options{
		Backend: s.Keychain.Backend, Service: s.Keychain.Service,
		Panicked: func(value string, stack []byte) {
			o.Logger.Named(string(messages.ActorCustody)).Error("keychain library panicked",
				zap.String("reason", string(messages.ReasonInternalError)), zap.String("value", value), zap.ByteString("stack", stack))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("opening the keychain: %w", err)
	}
	signIn, err := oauth.New(oauth.Config{
		Issuer: s.Hub.Issuer(), ForeignIssuer: s.Hub.IssuerURL != "", SessionURL: s.Hub.URL + "/api/v1/auth/session", ClientID: s.Hub.ClientID, Scope: scope,
		FirstParty: s.Hub.FirstParty, ForeignEndpoints: s.Hub.ForeignEndpoints,
		Loopback: strings.Trim(s.Hub.RedirectAddress, "[]"), Timeout: s.Hub.SignInTimeout, HTTP: hub,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the sign-in: %w", err)
	}
	repository, err := signedManifest(o, hub)
	if err != nil {
		return nil, err
	}
	return []suture.Service{
		custody.New(custody.Deps{
			Inbox: b.custody, Loopback: b.loopback, Lifecycle: b.lifecycle, FrontDoor: b.frontDoor,
			Keychain: secrets, Beat: custodyBeat(), Fatal: fatal, Changed: b.keychainChanged,
			Watch: func(ctx context.Context, changed func()) { keychain.Watch(ctx, s.Keychain.Backend, changed) },
			Log:   o.Logger.Named(string(messages.ActorCustody)),
		}),
		session.New(session.Deps{
			Inbox: b.session, Tokens: b.accessToken, Custody: b.custody, Manifest: b.manifest, Lifecycle: b.lifecycle,
			Hub: session.HubOf(signIn), View: b.sessionView, KeychainChanged: b.keychainChanged,
			Notes: sessionnote.File(filepath.Join(o.Places.State, "session.json")),
			Log:   o.Logger.Named(string(messages.ActorSession)),
		}),
		manifest.New(manifest.Deps{
			Inbox: b.manifest, Session: b.accessToken, Provision: b.provision, Lifecycle: b.lifecycle,
			Repository: repository, Model: s.Model.Name,
			Choice: selection.File{Path: filepath.Join(o.Places.State, "model.json"), Configured: s.Model.Name}, Grace: s.Manifest.Grace, View: b.manifestView,
			Log: o.Logger.Named(string(messages.ActorManifest)),
		}),
	}, nil
}

// custodyBeat is how often custody checks the stored loopback token: as often as a health success ages out by
// default (A5). Where reading the keychain may open a dialog, it is zero: no check.
func custodyBeat() time.Duration {
	if keychain.AsksByItself {
		return 0
	}
	return 15 * time.Second
}

// signedManifest opens the TUF client. cmd/companion has already validated manifest.root_file.
func signedManifest(o Options, hub *http.Client) (manifest.Repository, error) {
	s := o.Settings
	if s.Manifest.RootFile == "" {
		return noRoot{}, nil
	}
	root, err := tuf.ReadRoot(s.Manifest.RootFile)
	if err != nil {
		return nil, err
	}
	client, err := tuf.New(tuf.Config{
		URL: s.Hub.URL + "/api/v1/manifest/", Root: root, Dir: o.Places.Trust, Platform: platform(),
		PrivateHosts: s.Manifest.PrivateHosts, HTTP: hub,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the signed manifest: %w", err)
	}
	return client, nil
}

// noRoot is the repository if the configuration has no manifest.root_file: no manifest can be trusted. The
// daemon runs nevertheless, so that status can say what is missing.
type noRoot struct{}

func (noRoot) Refresh(context.Context, messages.Secret) (tuf.Catalogue, error) {
	return tuf.Catalogue{}, &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}

func (noRoot) Load() (tuf.Catalogue, error) {
	return tuf.Catalogue{}, &tuf.Error{Reason: messages.ReasonManifestUnreachable}
}

func (noRoot) LastGood() (tuf.Pair, error) {
	return tuf.Pair{}, &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}

func (noRoot) Remember(_, _ [32]byte) error {
	return &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}
