// Package docs holds the tests that compare the documents with each other and with the program: cited requirements
// exist, requirements have tests, and comments and documents are in plain English. It has no code outside its tests.
package docs
