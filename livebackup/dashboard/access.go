package dashboard

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net"
	"net/http"
	"slices"
	"strings"
)

// isToken compares in constant time; by digests, so that not even the length shows.
func (d *Dashboard) isToken(given string) bool {
	want, got := sha256.Sum256([]byte(d.o.Token)), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// allowed reports whether a request comes with the token.
func (d *Dashboard) allowed(r *http.Request) bool {
	if bearer, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found {
		return d.isToken(bearer)
	}
	c, err := r.Cookie(d.cookieName())
	return err == nil && d.isToken(c.Value)
}

// cookieName is another one for each token: cookies do not tell ports apart, and two
// dashboards of one machine must not forget each other's.
func (d *Dashboard) cookieName() string {
	sum := sha256.Sum256([]byte("cookie of " + d.o.Token))
	return "spillway-" + hex.EncodeToString(sum[:4])
}

// welcome gives the browser the token to keep, and takes it out of the address.
func (d *Dashboard) welcome(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{Name: d.cookieName(), Value: d.o.Token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.Header().Set("Location", "./")
	w.WriteHeader(http.StatusSeeOther)
}

// knownHost reports whether the browser asked for us: a name that is not ours may
// have been made to resolve to us by somebody whose page runs there.
func (d *Dashboard) knownHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	return host == "localhost" || net.ParseIP(host) != nil || slices.Contains(d.o.Hosts, host)
}
