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
	"companion/adapters/config"
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
	repository, err := signedManifest(o, hub)
	if err != nil {
		return nil, err
	}
	signedIn, err := sessionActor(o, b, hub)
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
		signedIn,
		manifest.New(manifest.Deps{
			Inbox: b.manifest, Session: b.accessToken, Provision: b.provision, Lifecycle: b.lifecycle,
			Repository: repository, Model: s.Model.Name, NoHub: !s.Hub.Configured(), Unpinned: s.Runtime.AllowUnpinnedBinary != "",
			Choice: selection.File{Path: filepath.Join(o.Places.State, "model.json"), Configured: s.Model.Name}, Grace: s.Manifest.Grace, View: b.manifestView,
			Log: o.Logger.Named(string(messages.ActorManifest)),
		}),
	}, nil
}

// sessionActor returns the actor that signs in at the hub, or the one for a configuration without a hub (M16).
func sessionActor(o Options, b boxes, hub *http.Client) (suture.Service, error) {
	s := o.Settings
	deps := session.Deps{
		Inbox: b.session, Tokens: b.accessToken, Custody: b.custody, Manifest: b.manifest, Lifecycle: b.lifecycle,
		View: b.sessionView, KeychainChanged: b.keychainChanged,
		Notes: sessionnote.File(filepath.Join(o.Places.State, "session.json")),
		Log:   o.Logger.Named(string(messages.ActorSession)),
	}
	if !s.Hub.Configured() {
		return session.NewWithoutHub(deps), nil
	}
	signIn, err := oauth.New(oauth.Config{
		Issuer: s.Hub.Issuer(), ForeignIssuer: s.Hub.IssuerURL != "", SessionURL: s.Hub.URL + "/api/v1/auth/session", ClientID: s.Hub.ClientID, Scope: scope,
		FirstParty: s.Hub.FirstParty, ForeignEndpoints: s.Hub.ForeignEndpoints,
		Loopback: strings.Trim(s.Hub.RedirectAddress, "[]"), Timeout: s.Hub.SignInTimeout, HTTP: hub,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the sign-in: %w", err)
	}
	deps.Hub = session.HubOf(signIn)
	return session.New(deps), nil
}

// custodyBeat is how often custody checks the stored loopback token: as often as a health success ages out by
// default (A5). Where reading the keychain may open a dialog, it is zero: no check.
func custodyBeat() time.Duration {
	if keychain.AsksByItself {
		return 0
	}
	return 15 * time.Second
}

// signedManifest opens the TUF client and the user's own catalogue. cmd/companion has already validated
// manifest.root_file.
func signedManifest(o Options, hub *http.Client) (manifest.Repository, error) {
	s := o.Settings
	sources := tuf.Sources{Hub: noManifest{}, Own: OwnCatalogue(s, o.Places)}
	if !s.Hub.Configured() || s.Manifest.RootFile == "" {
		return sources, nil
	}
	root, err := tuf.ReadRoot(s.Manifest.RootFile)
	if err != nil {
		return nil, err
	}
	sources.Hub, err = tuf.New(tuf.Config{
		URL: s.Hub.URL + "/api/v1/manifest/", Root: root, Dir: o.Places.Trust, Platform: Platform(),
		PrivateHosts: s.Manifest.PrivateHosts, HTTP: hub,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the signed manifest: %w", err)
	}
	return sources, nil
}

// OwnCatalogue returns the catalogue of what the user added (M16).
func OwnCatalogue(s config.Settings, places config.Places) *tuf.Own {
	return tuf.NewOwn(tuf.OwnConfig{
		Dir: filepath.Join(places.Trust, "own"), Platform: Platform(), PrivateHosts: s.Manifest.PrivateHosts,
	})
}

// noManifest is the hub's part of the repository if the configuration has no hub or no manifest.root_file: no manifest can be
// trusted. The daemon runs nevertheless, so that status can say what is missing.
type noManifest struct{}

func (noManifest) Refresh(context.Context, messages.Secret) (tuf.Catalogue, error) {
	return tuf.Catalogue{}, &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}

func (noManifest) Load() (tuf.Catalogue, error) {
	return tuf.Catalogue{}, &tuf.Error{Reason: messages.ReasonManifestUnreachable}
}

func (noManifest) LastGood() (tuf.Pair, error) {
	return tuf.Pair{}, &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}

func (noManifest) Remember(_, _ [32]byte) error {
	return &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}

func (noManifest) Evidence([32]byte) ([]byte, error) {
	return nil, &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}

func (noManifest) Verify([]byte, [32]byte) (messages.Artifact, time.Time, error) {
	return messages.Artifact{}, time.Time{}, &tuf.Error{Reason: messages.ReasonManifestUntrusted}
}
