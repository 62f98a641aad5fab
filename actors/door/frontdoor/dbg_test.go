package frontdoor
import ("testing";"strings";"fmt")
func TestDbg(t *testing.T){
	r := start(t, runtime(t), func(d *Deps) { d.Bounds.BodyBytes = 1000 })
	x := r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Transfer-Encoding: chunked")+"258\r\n"+strings.Repeat("x",600)+"\r\n258\r\n"+strings.Repeat("x",600)+"\r\n0\r\n\r\n"
	fmt.Println(len(r.raw(x)))
	for _, l := range r.logs.All() { fmt.Println(l.Message, l.ContextMap()) }
}
