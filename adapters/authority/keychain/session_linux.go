package keychain

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/godbus/dbus/v5"

	"companion/messages"
)

// Algorithms of a session (Secret Service specification, "Transfer of Secrets"). Encrypted transport protects secrets from
// programs that record the bus; it authenticates neither end.
const (
	algorithmDH    = "dh-ietf1024-sha256-aes128-cbc-pkcs7"
	algorithmPlain = "plain"
)

// dhPrime is the Second Oakley Group of RFC 2409 section 6.2; its generator is 2.
var dhPrime, _ = new(big.Int).SetString("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"+
	"EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE6"+
	"49286651ECE65381FFFFFFFFFFFFFFFF", 16)

// session is an open session. key is nil if the service offers plain transport only.
type session struct {
	path dbus.ObjectPath
	key  []byte
}

// openSession negotiates a key with the service. If the service does not support encryption, the transport is plain.
func (v *vault) openSession() (*session, error) {
	private, public, err := dhKey()
	if err != nil {
		return nil, err
	}
	s := &session{}
	var theirs dbus.Variant
	err = v.call(secretsPath, secretsService+".OpenSession", algorithmDH, dbus.MakeVariant(public)).Store(&theirs, &s.path)
	if errorName(err) == "org.freedesktop.DBus.Error.NotSupported" {
		err = v.call(secretsPath, secretsService+".OpenSession", algorithmPlain, dbus.MakeVariant("")).Store(&theirs, &s.path)
		if err == nil {
			return s, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	v.sessions = append(v.sessions, s.path)
	bytes, ok := theirs.Value().([]byte)
	if !ok {
		return nil, errors.New("opening a session: the service sent no public key")
	}
	s.key, err = dhShared(private, bytes)
	return s, err
}

// dhKey makes a key pair of one session.
func dhKey() (private *big.Int, public []byte, err error) {
	private, err = rand.Int(rand.Reader, new(big.Int).Sub(dhPrime, big.NewInt(2)))
	if err != nil {
		return nil, nil, fmt.Errorf("making a session key: %w", err)
	}
	private.Add(private, big.NewInt(1)) // 1 to p-2
	return private, new(big.Int).Exp(big.NewInt(2), private, dhPrime).Bytes(), nil
}

// dhShared derives the AES key. It refuses a public key for which the shared secret is predictable.
func dhShared(private *big.Int, public []byte) ([]byte, error) {
	theirs := new(big.Int).SetBytes(public)
	if theirs.Cmp(big.NewInt(1)) <= 0 || theirs.Cmp(new(big.Int).Sub(dhPrime, big.NewInt(1))) >= 0 {
		return nil, errors.New("opening a session: the service's public key is out of range")
	}
	shared := new(big.Int).Exp(theirs, private, dhPrime).FillBytes(make([]byte, len(dhPrime.Bytes())))
	key, err := hkdf.Key(sha256.New, shared, nil, "", aes.BlockSize)
	if err != nil {
		return nil, fmt.Errorf("deriving a session key: %w", err)
	}
	return key, nil
}

func (s *session) encrypt(value []byte) (secret, error) {
	out := secret{Session: s.path, Parameters: []byte{}, Value: value, ContentType: "text/plain; charset=utf8"}
	if s.key == nil {
		return out, nil
	}
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return secret{}, fmt.Errorf("encrypting for the bus: %w", err)
	}
	out.Parameters = make([]byte, aes.BlockSize)
	_, _ = rand.Read(out.Parameters) // never fails: crypto/rand crashes the program instead
	pad := aes.BlockSize - len(value)%aes.BlockSize
	padded := make([]byte, len(value)+pad)
	for i := copy(padded, value); i < len(padded); i++ {
		padded[i] = byte(pad)
	}
	cipher.NewCBCEncrypter(block, out.Parameters).CryptBlocks(padded, padded)
	out.Value = padded
	return out, nil
}

func (s *session) decrypt(in secret) ([]byte, error) {
	if s.key == nil {
		return in.Value, nil
	}
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return nil, fmt.Errorf("decrypting from the bus: %w", err)
	}
	if len(in.Parameters) != aes.BlockSize || len(in.Value) == 0 || len(in.Value)%aes.BlockSize != 0 {
		return nil, errors.New("decrypting from the bus: the secret is malformed")
	}
	value := make([]byte, len(in.Value))
	cipher.NewCBCDecrypter(block, in.Parameters).CryptBlocks(value, in.Value)
	pad := int(value[len(value)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, errors.New("decrypting from the bus: the padding is malformed")
	}
	for _, b := range value[len(value)-pad:] {
		if int(b) != pad {
			return nil, errors.New("decrypting from the bus: the padding is malformed")
		}
	}
	return value[:len(value)-pad], nil
}

// aliveWithin is how long a service may take to react under Brief. D-Bus libraries answer a ping without the program's help.
const aliveWithin = 100 * time.Millisecond

// alive checks under Brief that the service reacts. One that is stopped does not.
func (v *vault) alive() error {
	if v.ctx.Value(brief{}) == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(v.ctx, aliveWithin)
	defer cancel()
	err := v.conn.Object(secretsName, secretsPath).CallWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0).Err
	if ctx.Err() != nil {
		return fail(messages.ReasonKeychainTimeout, err)
	}
	return nil // other errors show in the call itself
}
