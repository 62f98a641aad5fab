import java.util.List;
import org.springframework.ai.openai.OpenAiChatModel;
import org.springframework.ai.openai.OpenAiChatOptions;
import org.springframework.ai.openai.api.OpenAiApi;
import org.springframework.ai.openai.api.ResponseFormat;

/** Spring AI, in its ordinary way: text, streams and a schema of the answer. It adds /v1 to the base URL itself. */
public class SpringClient {
  public static void main(String[] args) {
    String base = System.getenv("OPENAI_BASE_URL").replaceAll("/v1$", "");
    OpenAiApi api = OpenAiApi.builder().baseUrl(base).apiKey(System.getenv("OPENAI_API_KEY")).build();
    OpenAiChatOptions brief = OpenAiChatOptions.builder().model(System.getenv("OPENAI_MODEL")).maxTokens(5).build();
    OpenAiChatModel model = OpenAiChatModel.builder().openAiApi(api).defaultOptions(brief).build();
    check(!model.call("Hello.").isEmpty(), "no text");
    List<String> pieces = model.stream("Hello.").collectList().block();
    check(!String.join("", pieces).isEmpty(), "no stream");

    String schema = "{\"type\":\"object\",\"properties\":{\"sweet\":{\"type\":\"boolean\"}},\"required\":[\"sweet\"],\"additionalProperties\":false}";
    OpenAiChatOptions exact = OpenAiChatOptions.builder().model(System.getenv("OPENAI_MODEL")).maxTokens(200).temperature(0.0)
        .responseFormat(new ResponseFormat(ResponseFormat.Type.JSON_SCHEMA, schema)).build();
    String answer = OpenAiChatModel.builder().openAiApi(api).defaultOptions(exact).build().call("A pear.");
    check(answer.contains("sweet"), answer);
    System.out.println("ok");
    System.exit(0);
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) throw new AssertionError(otherwise);
  }
}
