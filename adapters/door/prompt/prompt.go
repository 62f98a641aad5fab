// Package prompt makes the reads and writes of a connection system calls that Go's scheduler does not
// see. They never block, so it need not; and each that it sees after a moment of rest wakes its monitor
// thread, which costs a streamed event a tenth of its delay, and beside which the kernel may place the
// woken reader on a busier processor. What waits still waits for the network poller, with its
// deadlines. Elsewhere than on Linux a connection stays as it is.
package prompt
