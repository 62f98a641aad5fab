package signin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"companion/adapters/privatefs"
)

// User is one development user. The password is stored in the clear, in a file that only the developer can read, because the
// developer looks it up there.
type User struct {
	Sub      string `json:"sub"`
	Provider string `json:"provider"`
	ID       string `json:"id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Password string `json:"password"`
}

// Scopes of the hub (hub.md).
const (
	scopeRead  = "vault:read"
	scopeWrite = "vault:write"
)

// scopes returns the scopes that a role may have. An unknown role counts as member (hub.md).
func scopes(role string) []string {
	if role == "reader" {
		return []string{scopeRead}
	}
	return []string{scopeRead, scopeWrite}
}

// loadUsers reads the users, and creates ada (a member) and grace (a reader) if there are none. It adds the user named also
// as a member if missing.
func loadUsers(path, also string) ([]User, error) {
	var users []User
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		users = []User{newUser("ada", "Ada Lovelace", "member"), newUser("grace", "Grace Hopper", "reader")}
	case err != nil:
		return nil, fmt.Errorf("reading the users: %w", err)
	default:
		if err := json.Unmarshal(data, &users); err != nil {
			return nil, fmt.Errorf("reading the users: %w", err)
		}
	}
	if also != "" && !slices.ContainsFunc(users, func(u User) bool { return u.ID == also }) {
		users = append(users, newUser(also, also, "member"))
	}
	data, err = json.MarshalIndent(users, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the users: %w", err)
	}
	return users, privatefs.WriteFile(path, data)
}

func newUser(id, name, role string) User {
	return User{Sub: "devhub|" + id, Provider: "devhub", ID: id, Name: name, Role: role, Password: rand.Text()}
}

func find(users []User, id string) (User, bool) {
	i := slices.IndexFunc(users, func(u User) bool { return u.ID == id })
	if i < 0 {
		return User{}, false
	}
	return users[i], true
}

// check compares digests, so that the time taken reveals neither content nor length of the password.
func (u User) check(password string) bool {
	want, got := sha256.Sum256([]byte(u.Password)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}
