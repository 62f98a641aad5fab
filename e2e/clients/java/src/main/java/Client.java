import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** langchain4j over Java's own HTTP client, which asks for HTTP/2 by an upgrade. */
public class Client {
  public static void main(String[] args) throws Exception {
    String url = System.getenv("OPENAI_BASE_URL"), key = System.getenv("OPENAI_API_KEY"), name = System.getenv("OPENAI_MODEL");
    var chat = OpenAiChatModel.builder().baseUrl(url).apiKey(key).modelName(name).maxTokens(5).maxRetries(0).timeout(Duration.ofMinutes(2)).build();
    if (chat.chat("Hello.").isEmpty()) throw new IllegalStateException("the answer is empty");
    var stream = OpenAiStreamingChatModel.builder().baseUrl(url).apiKey(key).modelName(name).maxTokens(5).timeout(Duration.ofMinutes(2)).build();
    var whole = new CompletableFuture<ChatResponse>();
    stream.chat("Hello.", new StreamingChatResponseHandler() {
      @Override public void onPartialResponse(String piece) {}
      @Override public void onCompleteResponse(ChatResponse response) { whole.complete(response); }
      @Override public void onError(Throwable error) { whole.completeExceptionally(error); }
    });
    if (whole.get(2, TimeUnit.MINUTES).aiMessage().text().isEmpty()) throw new IllegalStateException("the stream is empty");
    System.out.println("ok");
  }
}
