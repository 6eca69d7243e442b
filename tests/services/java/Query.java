import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import java.util.StringJoiner;

/** Runs one statement with pgjdbc. Properties on stdin: url, sql, and whatever the driver is to be given. */
public final class Query {
    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.load(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String url = (String) properties.remove("url");
        String sql = (String) properties.remove("sql");
        try (Connection connection = DriverManager.getConnection(url, properties);
                Statement statement = connection.createStatement()) {
            if (statement.execute(sql)) {
                print(statement.getResultSet());
            }
        } catch (SQLException failure) {
            System.err.println(failure.getSQLState() + " " + failure.getMessage());
            System.exit(1);
        }
    }

    private static void print(ResultSet rows) throws SQLException {
        int columns = rows.getMetaData().getColumnCount();
        while (rows.next()) {
            StringJoiner line = new StringJoiner("\t");
            for (int column = 1; column <= columns; column++) {
                String value = rows.getString(column);
                line.add(value == null ? "" : value);
            }
            System.out.println(line);
        }
    }
}
